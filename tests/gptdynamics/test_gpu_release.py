"""The release that a GPU makes of a real model: its plan, tried small on a CPU, and the precision that it asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.gradient_reading import read_products
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.plans import read_plan, usual_training
from gptdynamics.runs.precision import TensorFloat32, backward_precision, forward_precision

SMALL = {
    "pool_size": "12",
    "subset": "8",
    "epochs": "1",
    "steps": "2",
    "test_examples": "4",
    "generate_every": "2",
    "max_length": "64",
    "runs": "6",
    "kernels": "1",
    "kernel_checkpoints": "2",
    "counterfactuals": '{ "0003" = 1, "0004" = 2 }',
}


@pytest.fixture
def small_plan(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """The plan with fewer of everything, on a tiny model."""
    text = resources.files("gptdynamics.plans").joinpath("smollm2_gpu.toml").read_text(encoding="utf-8")
    for name, value in SMALL.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert count == 1, name
    path = tmp_path / "small.toml"
    path.write_text(text.replace("[defaults]", f'[defaults]\nbase_model = "{tiny_model_folder}"'), encoding="utf-8")
    return path


def test_the_plan_measures_every_step_of_32_runs() -> None:
    plan = read_plan("smollm2_gpu")
    assert [entry.config for entry in plan][:2] == ["sst2_smollm2", "webnlg_smollm2"]
    for entry in plan:
        run = entry.settings
        assert (entry.runs, run.test_examples, run.eval_every, run.precision) == (32, 200, 1, "tf32")
        assert {"0003", "0004"} == set(entry.counterfactuals) < set(entry.kernel_runs)
    # Trained as the plan of two cores trains.
    other = read_plan("smollm2").entries[0].settings
    first = plan.entries[0].settings
    same = ("learning_rate", "batch_size", "epochs", "steps", "subset", "pool_size", "max_length")
    assert [getattr(first, name) for name in same] == [getattr(other, name) for name in same]
    assert usual_training("sst2_smollm2")["learning_rate"] == first.learning_rate


def test_a_small_version_is_collected_and_goes_on_where_it_was_interrupted(
    command: Callable[..., tuple[int, str, str]], small_plan: Path, rows_folder: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "out", tmp_path / "report.json"
    asked = ["sst2_smollm2", "webnlg_smollm2", "--plan", str(small_plan), "--data", str(rows_folder), "--workers", "1"]
    asked = ["collect", *asked, "--device", "cpu", "--out", str(out), "--json", str(report)]
    status, _, errors = command(*asked)
    assert status == 0, errors
    assert len(json.loads(report.read_text())["done"]) == 2 * 9
    assert verify(out).ok
    folder = DatasetFolder(out)
    for config in ("sst2_smollm2", "webnlg_smollm2"):
        row = read_parquet(folder.run_row_path(config, "c0004-0001")).to_pylist()[0]
        assert (row["precision"], row["repeats"]) == ("tf32", "0004")
        assert read_products(out, config, "0004").step.tolist() == [0, 1]
    # A run whose trajectories are not there was interrupted; so was one without its kernel.
    before = folder.run_path("sst2_smollm2", "0005").read_bytes()
    kernel = folder.products_path("webnlg_smollm2", "0003").read_bytes()
    folder.run_path("sst2_smollm2", "0005").unlink()
    folder.products_path("webnlg_smollm2", "0003").unlink()
    assert command(*asked)[0] == 0
    again = json.loads(report.read_text())
    assert (again["done"], again["kernels"]) == (["sst2_smollm2/0005"], ["webnlg_smollm2/0003"])
    assert folder.run_path("sst2_smollm2", "0005").read_bytes() == before
    assert folder.products_path("webnlg_smollm2", "0003").read_bytes() == kernel
    assert verify(out).ok


def test_tf32_is_of_gpus_and_ends_with_the_pass() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    before = torch.get_float32_matmul_precision()
    for make in (forward_precision, backward_precision):
        context = make("tf32", gpu)
        assert isinstance(context, TensorFloat32)
        for _ in range(2):
            with context:
                with context:
                    assert torch.get_float32_matmul_precision() == "high"
                assert torch.get_float32_matmul_precision() == "high"
            assert torch.get_float32_matmul_precision() == before
        for precision, device in (("tf32", cpu), ("fp32", cpu), ("bf16", cpu)):
            with make(precision, device):
                assert torch.get_float32_matmul_precision() == before
