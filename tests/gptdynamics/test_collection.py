from __future__ import annotations

import errno
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gptdynamics.collection import Collected, CollectSettings, collect, missing_runs
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.errors import DataError, DivergedRunError, SettingsError
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.runs import Bench
from gptdynamics.tasks import add_task_file
from tests.own_metrics import TASK, settings_of, task_file

CollectHere = Callable[..., Collected]
SIX = [f"rte_tiny/{at:04d}" for at in range(6)]


def wanted(settings: RunSettings, out: Path, runs: int, data: Path | None = None, workers: int = 1) -> CollectSettings:
    return CollectSettings(Plan("test", (PlanEntry(settings, runs),)), out, data, workers, "cpu")


@pytest.fixture
def collect_into(make_settings: Callable[..., RunSettings], rows_folder: Path) -> CollectHere:
    """Collect into a folder with the settings that the shared folder was made with, but for changes."""

    def run(out: Path, config: str = "rte_tiny", runs: int = 6, workers: int = 1, **changes: Any) -> Collected:
        return collect(wanted(make_settings(config, **changes), out, runs, rows_folder, workers))

    return run


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and modification time of every file but the sidecars and locks, which differ between identical runs."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
        if not {"sidecar", ".claims"} & set(path.parts)
    }


def parquet_bytes(folder: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in contents(folder).items() if name.endswith(".parquet")}


def test_finished_runs_are_never_made_again(collected: Path, collect_into: CollectHere) -> None:
    before = contents(collected)
    again = collect_into(collected)
    assert (again.done, again.skipped, again.failed) == ([], SIX, {})
    assert contents(collected) == before


@pytest.mark.parametrize("gone", ["data/rte_tiny/train-0001.parquet", "data/rte_tiny_runs/validation-0003.parquet"])
def test_a_deleted_file_is_collected_again_with_the_same_bytes(
    collected: Path, collect_into: CollectHere, gone: str
) -> None:
    before = contents(collected)
    (collected / gone).unlink()
    again = collect_into(collected)
    assert again.done == [f"rte_tiny/{gone[-12:-8]}"]
    after = contents(collected)
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    redone = {name for name in after if after[name] != before[name]}
    assert redone <= {name for name in after if name.endswith(gone[-13:])} | {"README.md", "trajectories.svg"}


def test_more_runs_are_added_and_move_none(collected: Path, collect_into: CollectHere) -> None:
    before = contents(collected)
    more = collect_into(collected, runs=7)
    assert (more.done, more.skipped) == (["rte_tiny/0006"], SIX)
    after = contents(collected)
    counted = {"README.md", "manifests/rte_tiny.json"}
    assert {name: after[name] for name in before if name not in counted} == {
        name: before[name] for name in before if name not in counted
    }
    assert set(after) - set(before) == {"data/rte_tiny/train-0006.parquet", "data/rte_tiny_runs/train-0006.parquet"}


def test_two_workers_write_the_bytes_that_one_writes(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Of a task in a file, which workers have to find by themselves."""
    # Without what a score of the package imports in each of them.
    add_task_file(task_file(tmp_path / "task", TASK.replace('        "bleu",\n', "")))
    plan = (PlanEntry(settings_of(tiny_model_folder), 3),)
    for workers in (1, 2):
        done = collect(CollectSettings(plan, tmp_path / str(workers), workers=workers, device="cpu")).done
        assert sorted(done) == [f"notes_tiny/000{at}" for at in range(3)]
    there = parquet_bytes(tmp_path / "2")
    assert len(there) == 8
    assert there == parquet_bytes(tmp_path / "1")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"learning_rate": 0.002}, "learning_rate: 0.001 there, 0.002 now"),
        ({"seed": 3, "epochs": 2}, "epochs: 1 there, 2 now; seed: 0 there, 3 now"),
        ({"test_examples": 4}, "test_examples: 5 there, 4 now"),
    ],
)
def test_other_settings_on_the_same_folder_are_refused_with_the_difference(
    collected: Path, collect_into: CollectHere, changes: dict[str, Any], difference: str
) -> None:
    before = contents(collected)
    with pytest.raises(SettingsError) as error:
        collect_into(collected, **changes)
    assert f"({difference})" in str(error.value)
    assert "another --out" in str(error.value)
    assert contents(collected) == before


def test_other_rows_on_the_same_folder_are_refused(
    collected: Path, make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "eval"):
        text = (rows_folder / "rte" / f"{split}.jsonl").read_text(encoding="utf-8")
        path = tmp_path / "rows" / "rte" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("garden", "meadow"), encoding="utf-8")
    with pytest.raises(DataError, match=r"pool\.parquet: example \d+ has another text"):
        collect(wanted(make_settings(), collected, 7, tmp_path / "rows"))


def fail_run_1(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Bench.run

    def run(bench: Bench, name: str, on_step: Callable[[int], None], **options: Any) -> Any:
        if name == "0001":
            raise DivergedRunError("training loss is not finite at update 2")
        return whole(bench, name, on_step, **options)

    monkeypatch.setattr(Bench, "run", run)


def test_a_diverged_run_is_recorded_with_its_reason_and_the_others_are_kept(
    collect_into: CollectHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    fail_run_1(monkeypatch)
    result = collect_into(out, runs=3)
    reason = "training loss is not finite at update 2"
    assert (result.done, result.failed) == ([SIX[0], SIX[2]], {SIX[1]: reason})
    sidecar = json.loads((out / "sidecar/rte_tiny/0001.failed.json").read_text(encoding="utf-8"))
    assert sidecar == {"run": "0001", "reason": reason}
    assert not list(out.glob("data/*/*-0001.parquet"))
    assert read_dynamics(out, "rte_tiny", "loss").runs == ["0000", "0002"]


def test_a_diverged_run_is_told_again_but_not_tried_again(
    collect_into: CollectHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_run_1(monkeypatch)
    first = collect_into(tmp_path / "out", runs=3)
    before = contents(tmp_path / "out")
    again = collect_into(tmp_path / "out", runs=3)
    assert (again.done, again.skipped, again.failed) == ([], [SIX[0], SIX[2]], first.failed)
    assert contents(tmp_path / "out") == before


def test_a_huge_learning_rate_leaves_reasons_and_no_numbers(collect_into: CollectHere, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = collect_into(out, runs=2, learning_rate=1e6, epochs=3)
    assert (result.done, sorted(result.failed)) == ([], SIX[:2])
    assert {f"rte_tiny/{run}": why for run, why in DatasetFolder(out).failed("rte_tiny").items()} == result.failed
    assert not list(out.glob("data/rte_tiny*/*"))


def test_missing_runs_are_known_without_loading_anything(
    collected: Path, make_settings: Callable[..., RunSettings]
) -> None:
    assert missing_runs(collected, PlanEntry(make_settings(), 8)) == ["0006", "0007"]
    assert missing_runs(collected, PlanEntry(make_settings("rte_other"), 2)) == ["0000", "0001"]


def test_progress_counts_every_measurement_and_names_every_run(
    make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path
) -> None:
    started: list[tuple[str, int]] = []
    steps: list[str] = []
    names: list[str] = []
    settings = wanted(make_settings(), tmp_path / "out", 2, rows_folder)
    collect(settings, lambda config, total: started.append((config, total)), steps.append, names.append)
    assert (started, steps, names) == ([("rte_tiny", 6)], ["rte_tiny"] * 6, SIX[:2])


def test_cut_prompts_are_counted(make_settings: Callable[..., RunSettings], tmp_path: Path) -> None:
    settings = make_settings("mini_sentiment_tiny")
    result = collect(wanted(settings, tmp_path / "out", 1))
    bench = Bench.load(settings, None)
    every = [*bench.tokenized.values(), *bench.test_set.tokenized]
    assert 0 < result.cut["mini_sentiment_tiny"] == sum(example.cut > 0 for example in every)


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"runs": 1, "workers": 0}])
def test_no_runs_or_no_workers_are_refused(
    make_settings: Callable[..., RunSettings], tmp_path: Path, wrong: dict[str, int]
) -> None:
    with pytest.raises(SettingsError, match="=0 must be at least 1"):
        wanted(make_settings(), tmp_path, **wrong)


@pytest.mark.parametrize("where", ["flush", "parquet"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    collected: Path, collect_into: CollectHere, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before = contents(collected)

    def full(*arguments: Any, **options: Any) -> None:
        if where == "parquet":
            arguments[1].write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if where == "flush" else (pq, "write_table")), full)
        with pytest.raises(DataError) as error:
            collect_into(collected, runs=7)
    assert re.fullmatch(rf"cannot write {collected}/\S+: No space left on device", str(error.value))
    now = contents(collected)
    assert {name: now[name] for name in before if "manifests" not in name} == {
        name: before[name] for name in before if "manifests" not in name
    }
    assert now.keys() == before.keys()
    assert collect_into(collected, runs=7).done == ["rte_tiny/0006"]


@pytest.mark.parametrize("place", [".", "data", "manifests", ".claims"])
def test_a_file_in_the_way_of_the_folder_is_one_line(tmp_path: Path, collect_into: CollectHere, place: str) -> None:
    out = tmp_path / "out"
    path = out / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError) as error:
        collect_into(out, runs=1)
    assert str(error.value).startswith(f"cannot write {path}")
    assert "\n" not in str(error.value)
    assert path.read_text(encoding="utf-8") == "in the way"
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_a_killed_collector_left_unfinished_is_removed_by_the_next(
    collected: Path, collect_into: CollectHere
) -> None:
    folder = DatasetFolder(collected).run_path("rte_tiny", "0001").parent
    names = [f".train-0009.parquet.{process}@{platform.node()}.abc.tmp" for process in (999999999, os.getpid())]
    dead, living = (folder / name for name in names)
    for path in (dead, living):
        path.write_bytes(b"PAR1")
    lock = collected / ".claims" / "rte_tiny.0009.lock"
    lock.touch()
    collect_into(collected)
    assert (dead.exists(), living.exists(), lock.exists()) == (False, True, False)
    assert read_dynamics(collected, "rte_tiny", "loss").runs == [name.split("/")[1] for name in SIX]


def test_runs_on_unseen_rows_share_the_test_set_and_the_limits_of_the_others(
    collected_once: Path, make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path
) -> None:
    plan = Plan("test", (PlanEntry(make_settings("webnlg_tiny"), 1, unseen_runs=1),))
    result = collect(CollectSettings(plan, tmp_path, rows_folder, workers=1))
    assert result.done == ["webnlg_tiny/0000", "webnlg_tiny/u0000"]
    there, alone = parquet_bytes(tmp_path), parquet_bytes(collected_once)
    shared = there.keys() & alone.keys() - {"data/webnlg_examples/pool.parquet"}
    assert "data/webnlg_tiny/train-0000.parquet" in shared
    assert {name: there[name] for name in shared} == {name: alone[name] for name in shared}
    assert {name for name in there if "unseen" in name} == {
        "data/webnlg_tiny/test_unseen-u0000.parquet",
        "data/webnlg_tiny_runs/test_unseen-u0000.parquet",
    }
    values = read_dynamics(tmp_path, "webnlg_tiny", "loss", unseen=True).values
    np.testing.assert_array_equal(values[0, :, 0], values[1, :, 0])
    assert (values[0][1:] != values[1][1:]).any()


def test_unseen_runs_may_be_added_to_a_folder_later(
    collected: Path, make_settings: Callable[..., RunSettings], rows_folder: Path
) -> None:
    before = contents(collected)
    plan = Plan("test", (PlanEntry(make_settings(), 2, unseen_runs=1),))
    result = collect(CollectSettings(plan, collected, rows_folder, workers=1))
    assert result.done == ["rte_tiny/u0000"]
    after = contents(collected)
    grown = {"README.md", "manifests/rte_tiny.json", "data/rte_examples/pool.parquet"}
    assert {name: after[name] for name in before if name not in grown} == {
        name: before[name] for name in before if name not in grown
    }
    manifest = json.loads((collected / "manifests/rte_tiny.json").read_text(encoding="utf-8"))
    assert manifest["planned"] == {"runs": 6, "unseen_runs": 1}


def test_unseen_runs_added_later_get_their_gradient_vectors_too(
    with_gradients: Path, make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path
) -> None:
    settings = make_settings(gradients="test", gradient_width=16)
    for unseen in (0, 2):
        plan = Plan("test", (PlanEntry(settings, 1, unseen_runs=unseen),))
        collect(CollectSettings(plan, tmp_path, rows_folder, workers=1))
    there, at_once = parquet_bytes(tmp_path), parquet_bytes(with_gradients)
    assert "data/rte_tiny_gradients/base.parquet" in there
    assert there == {name: at_once[name] for name in there}


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "cuda:x", "cuda:-1", ""])
def test_other_devices_are_refused(make_settings: Callable[..., RunSettings], tmp_path: Path, device: str) -> None:
    plan = Plan("test", (PlanEntry(make_settings()),))
    with pytest.raises(SettingsError, match=f"device='{device}' must be auto, cpu, cuda or cuda:<number>"):
        CollectSettings(plan, tmp_path, device=device)


def test_workers_have_a_device_each(
    make_settings: Callable[..., RunSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan("test", (PlanEntry(make_settings()),))

    def devices(device: str, workers: int | None = None) -> list[str]:
        return CollectSettings(plan, tmp_path, workers=workers, device=device).devices()

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices("auto") == devices("cuda") == ["cuda:0", "cuda:1"]
    assert devices("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert devices("cpu", 2) == ["cpu", "cpu"]
    with pytest.raises(SettingsError, match="device cuda:2 does not exist: torch finds 2 GPUs"):
        devices("cuda:2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert devices("auto", 2) == ["cpu", "cpu"]
    with pytest.raises(SettingsError, match="device cuda does not exist: torch finds 0 GPUs"):
        devices("cuda")


@pytest.mark.parametrize(
    "config", ["2024_7", "1_000", "on_off", "null_1", "0x10_a", "1e3_x", "yes_no", "2024-01-01_nano"]
)
def test_names_that_yaml_reads_as_something_else_stay_names(
    config: str, make_settings: Callable[..., RunSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml
    from datasets import get_dataset_config_names, load_dataset

    task = config.rpartition("_")[0]
    (tmp_path / "task.py").write_text(
        f"from gptdynamics.tasks.mini_sentiment import MiniSentiment\nclass Own(MiniSentiment):\n    name = {task!r}\n"
    )
    monkeypatch.setenv("GPTDYNAMICS_TASKS", str(tmp_path / "task.py"))
    root = tmp_path / "d"
    collect(CollectSettings(Plan("one", (PlanEntry(make_settings(config, steps=1), 1),)), root, workers=1))
    head = (root / "README.md").read_text().split("---")[1]
    # PyYAML reads YAML 1.1, in which `on`, `1_000` and `0x10` are no texts.
    names = [each["config_name"] for each in yaml.safe_load(head)["configs"]]
    assert names == [config, f"{config}_runs", f"{task}_examples"]
    assert get_dataset_config_names(str(root)) == names
    assert load_dataset(str(root), config, split="train", cache_dir=str(tmp_path / "cache"))["run"][0] == "0000"
