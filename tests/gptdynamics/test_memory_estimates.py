"""What workers need is near what they take, and a collection that does not fit is refused before any work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.collection import memory as collection_memory
from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError
from gptdynamics.estimates import ModelShape, available_memory, base_shape, task_lengths, worker_memory
from gptdynamics.estimates import machine as machine_memory
from gptdynamics.estimates.memory import GIB, SHARED, WorkerMemory
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks import get_task

MIB = 2**20
SMALL = {"learning_rate": 1e-5, "pool_size": 32, "subset": 16, "steps": 2, "test_examples": 16}
# Of a process that makes a run of two updates and takes its kernel before each, the most memory that it had.
PEAK = """
import re
from pathlib import Path
import torch
from gptdynamics.configs import RunSettings
from gptdynamics.runs.bench import Bench
from gptdynamics.settings.kernels import KernelSettings
torch.set_num_threads(1)
settings = RunSettings("mini_sentiment_nano", **{small})
Bench.load(settings, None).run("0000", kernels=KernelSettings(checkpoints=2))
# Of this process alone: what getrusage says may be what the process that started it once had.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def estimate(config: str, kernel: KernelSettings | None = None, **changes: object) -> WorkerMemory:
    settings = RunSettings(config, **(SMALL | changes))  # type: ignore[arg-type]
    return worker_memory(base_shape(settings.base), settings, task_lengths(get_task(settings.task)), kernel)


@pytest.mark.slow
def test_nano_takes_what_is_estimated() -> None:
    code = PEAK.replace("{small}", repr(SMALL))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ratio = estimate("mini_sentiment_nano", KernelSettings()).total / (int(found.stdout) * 1024)
    assert 1 / 1.5 < ratio < 1.5


def test_a_real_model_takes_what_is_estimated() -> None:
    # Measured once: sst2, two updates, a kernel before each, one thread.
    assert 1 / 1.5 < estimate("sst2_smollm2", KernelSettings()).total / (4004 * MIB) < 1.5


def test_what_it_is_made_of() -> None:
    small = estimate("sst2_smollm2")
    weights = base_shape("smollm2").weights
    assert (small.weights, small.training, small.products) == (8 * weights, 12 * weights, 0)
    with_kernel = estimate("sst2_smollm2", KernelSettings())
    assert with_kernel.total - small.total == pytest.approx(with_kernel.products - small.passes)
    assert estimate("sst2_smollm2", KernelSettings(columns=32)).products < with_kernel.products
    assert estimate("sst2_smollm2", KernelSettings(memory=0.5)).products < with_kernel.products
    more = estimate("sst2_smollm2", KernelSettings(), test_examples=64).products
    assert with_kernel.products < more < estimate("sst2_smollm2", KernelSettings(), test_examples=200).products
    adapters = estimate("sst2_smollm2", lora_rank=8)
    assert adapters.training < small.training / 50 and adapters.weights < 1.01 * small.weights


def test_matrices_are_all_the_weights() -> None:
    for shape in (base_shape("nano"), base_shape("smollm2"), ModelShape(3, 64, 4, 256, 512, 128)):
        assert sum(rows * wide * count for (rows, wide), count in shape.matrix_sides) == shape.weights


@pytest.fixture
def plan() -> Plan:
    settings = RunSettings("sst2_smollm2", **SMALL)  # type: ignore[arg-type]
    return Plan("one", (PlanEntry(settings, 6, kernels=1),))


@pytest.mark.parametrize(
    ("free", "workers", "advice"),
    [
        (9, 4, "Give --workers 2"),
        (4.2, 2, "Give --workers 1 --kernel-memory 3"),
        (3.9, 2, "Give --workers 1 --kernel-memory 2"),
        (3.2, 1, "Give --workers 1 --kernels 0"),
        (2, 1, "Use a smaller base model, or a machine with more memory"),
    ],
)
def test_too_little_memory_is_said_before_any_work(
    free: float, workers: int, advice: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection_memory, "available_memory", lambda: free * GIB)
    with pytest.raises(SettingsError) as error:
        collect(CollectSettings(plan, out=tmp_path / "out", workers=workers, device="cpu"))
    message = str(error.value)
    assert message.startswith("too little memory: sst2_smollm2: a worker needs about 4.3 GiB (weights 1.0, ")
    assert f"GiB of {free:.1f} GiB that are free. {advice}" in message and message.endswith(advice)
    assert not (tmp_path / "out").exists()


def test_only_workers_that_take_products_need_their_memory(plan: Plan, tmp_path: Path) -> None:
    (need,) = collection_memory.memory_needs(CollectSettings(plan, out=tmp_path, workers=3, device="cpu"))
    without = estimate("sst2_smollm2")
    assert (need.workers, need.with_products) == (3, 1)
    handing_out = without.libraries + without.weights / 2
    # What libraries share is there once, for four processes.
    assert need.needed == pytest.approx(need.worker.total + 2 * without.total + handing_out - 3 * SHARED)


def test_a_dry_run_says_how_much(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection_memory, "available_memory", lambda: 4 * GIB)
    report = tmp_path / "report.json"
    options = ["--kernels", "1", "--workers", "2", "--device", "cpu", "--dry-run", "--json", str(report)]
    status, output, errors = command("collect", "sst2_smollm2", "--out", str(tmp_path / "out"), *options)
    assert status == 0
    assert "sst2_smollm2: a worker needs about" in output and "of 4.0 GiB that are free" in output
    assert "sst2_smollm2: the kernel of a run takes one worker about" in output
    assert errors.startswith("note: that is too little memory, so collect would stop with an error. Give --workers 1")
    (need,) = json.loads(report.read_text())["memory"]["sst2_smollm2"]
    assert (need["device"], need["workers"], need["free"]) == ("cpu", 2, 4 * GIB)
    assert need["needed"] > 2 * need["worker"]["total"] - need["worker"]["products"] > 0


def test_nothing_is_asked_where_nothing_is_left_to_do(
    make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CollectSettings(
        Plan("one", (PlanEntry(make_settings(), 1),)), out=tmp_path, data=rows_folder, workers=1, device="cpu"
    )
    collect(settings)
    monkeypatch.setattr(collection_memory, "available_memory", lambda: 1.0)
    assert collect(settings).done == []


def test_the_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = available_memory()
    assert whole is not None and whole > MIB
    contents = {"limit": "2000000", "used": "1500000", "stat": "anon 1\ninactive_file 250000\n"}
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    paths = tuple(str(tmp_path / name) for name in contents)
    monkeypatch.setattr(machine_memory, "_CONTAINERS", (paths,))
    assert available_memory() == 750000
    (tmp_path / "limit").write_text("max\n")
    assert available_memory() == pytest.approx(whole, rel=0.5)
