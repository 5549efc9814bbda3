"""Kernels taken while runs are collected: which runs, what is written, and that they are the engine's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.collection.settings import missing_kernels
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum, linear_decay, run_seed
from gptdynamics.dataset import DatasetFolder
from gptdynamics.dataset.gradient_reading import read_products
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.gradients import gradient_kernel
from gptdynamics.plans import Plan, PlanEntry, read_plan
from gptdynamics.runs import Bench
from gptdynamics.settings.kernels import KernelSettings

CONFIG = "rte_tiny"
KERNEL = KernelSettings(checkpoints=3, columns=8)


@pytest.fixture
def settings(make_settings: Callable[..., RunSettings]) -> RunSettings:
    return make_settings(CONFIG)


def make(entry: PlanEntry, out: Path, rows: Path) -> list[str]:
    plan = Plan("kernels", (entry,))
    collected = collect(CollectSettings(plan, out, rows, workers=1, device="cpu"))
    assert collected.failed == {}
    return collected.kernels


def run_files(out: Path) -> dict[str, bytes]:
    folders = (out / "data" / CONFIG, out / "data" / f"{CONFIG}_runs")
    return {path.name: path.read_bytes() for folder in folders for path in folder.iterdir()}


def test_the_first_training_runs_and_named_runs_get_kernels(
    settings: RunSettings, rows_folder: Path, tmp_path: Path
) -> None:
    entry = PlanEntry(settings, 5, kernels=1, kernels_of=("0004",), kernel=KERNEL)
    assert make(entry, tmp_path, rows_folder) == [f"{CONFIG}/0000", f"{CONFIG}/0004"]
    assert verify(tmp_path).faults == []
    products = read_products(tmp_path, CONFIG, "0004")
    assert products.kernel is not None
    assert (products.kernel.columns, products.kernel.seed) == (8, 0)
    assert (
        [each.step for each in products.kernel.checkpoints] == list(products.step) == KERNEL.steps(settings.run_steps)
    )
    assert all(each.covered == pytest.approx(1) and each.error > 0 for each in products.kernel.checkpoints)
    assert all(each.not_covered == () for each in products.kernel.checkpoints)
    with pytest.raises(DataError, match="no gradient products"):
        read_products(tmp_path, CONFIG, "0001")
    assert missing_kernels(tmp_path, entry) == make(entry, tmp_path, rows_folder) == []


def test_a_kernel_is_that_of_the_weights_at_its_step(settings: RunSettings, rows_folder: Path, tmp_path: Path) -> None:
    make(PlanEntry(settings, 1, kernels=1, kernel=KERNEL), tmp_path, rows_folder)
    products = read_products(tmp_path, CONFIG, "0000")
    bench = Bench.load(settings, rows_folder)
    rates = linear_decay(settings.learning_rate, settings.run_steps)
    models = bench.weights(draw_curriculum(settings, "0000"), rates, run_seed(settings, "0000"))
    taken = 0
    for step, model in enumerate(models):
        if step in products.step:
            pool = [bench.tokenized[pool_id] for pool_id in products.pool_ids]
            kernel = gradient_kernel(model, pool, bench.test_set.tokenized, columns=8)
            np.testing.assert_allclose(products.values[taken], kernel.products, rtol=1e-4, atol=1e-6)
            taken += 1
    assert taken == len(KERNEL.steps(settings.run_steps)) > 1


def test_finished_runs_are_made_again_for_their_kernels_alone(
    settings: RunSettings, rows_folder: Path, tmp_path: Path
) -> None:
    make(PlanEntry(settings, 2), tmp_path / "later", rows_folder)
    before = run_files(tmp_path / "later")
    entry = PlanEntry(settings, 2, kernels=2, kernel=KERNEL)
    assert make(entry, tmp_path / "later", rows_folder) == [f"{CONFIG}/0000", f"{CONFIG}/0001"]
    assert run_files(tmp_path / "later") == before
    make(entry, tmp_path / "at_once", rows_folder)
    assert run_files(tmp_path / "at_once") == before
    for run in ("0000", "0001"):
        paths = [DatasetFolder(tmp_path / each).products_path(CONFIG, run) for each in ("later", "at_once")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_runs_with_exact_products_get_no_projected_ones(
    make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path
) -> None:
    settings = make_settings(CONFIG, gradients="test", gradient_width=8)
    entry = PlanEntry(settings, 5, kernels_of=("0004",), kernel=KERNEL)
    assert missing_kernels(tmp_path, entry) == make(entry, tmp_path, rows_folder) == []
    assert read_products(tmp_path, CONFIG, "0004").kernel is None


def test_a_damaged_account_of_a_kernel_is_a_fault(settings: RunSettings, rows_folder: Path, tmp_path: Path) -> None:
    make(PlanEntry(settings, 1, kernels=1, kernel=KERNEL), tmp_path, rows_folder)
    path = DatasetFolder(tmp_path).products_path(CONFIG, "0000")
    table = pq.read_table(path)
    kernel = json.loads(table.schema.metadata[b"gptdynamics.kernel"])

    def rewrite(**changes: object) -> list[str]:
        text = json.dumps(kernel | changes).encode()
        pq.write_table(table.replace_schema_metadata({b"gptdynamics.kernel": text}), path, compression="zstd")
        return [str(fault) for fault in verify(tmp_path).faults]

    assert rewrite() == []
    assert any("projection_seed" in fault for fault in rewrite(seed=7))
    assert any("damaged" in fault for fault in rewrite(checkpoints=[]))
    assert any("damaged" in fault for fault in rewrite(columns="many"))
    late = [each | {"step": each["step"] + 10_000} for each in kernel["checkpoints"]]
    assert any("updates" in fault for fault in rewrite(checkpoints=late))
    assert any("rows" in fault for fault in rewrite(checkpoints=kernel["checkpoints"][:-1]))


def test_what_has_no_run_is_refused(settings: RunSettings) -> None:
    with pytest.raises(SettingsError, match="kernels=3, but there are only 2 training runs"):
        PlanEntry(settings, 2, kernels=3)
    with pytest.raises(SettingsError, match="no run 0009 to compute the kernel of"):
        PlanEntry(settings, 2, kernels_of=("0009",))
    with pytest.raises(SettingsError, match="columns"):
        KernelSettings(columns=0)


def test_a_plan_file_says_which_kernels(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        '[defaults]\nlearning_rate = 1e-4\nkernels = 2\n[[config]]\nconfig = "rte_nano"\nruns = 8\n'
        'kernels_of = ["0004"]\nkernel_columns = 64\n'
    )
    (entry,) = read_plan(path)
    assert entry.kernel_runs == ["0000", "0001", "0004"]
    assert entry.kernel == KernelSettings(columns=64)
    path.write_text('[[config]]\nconfig = "rte_nano"\nkernels_of = "0004"\n')
    with pytest.raises(DataError, match="kernels_of = '0004' is not a list of runs"):
        read_plan(path)
