from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.collection import Bench, Collected, CollectSettings, collect, missing_runs
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.errors import DataError, DivergedRunError, SettingsError
from gptdynamics.plans import Plan, PlanEntry

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
    assert redone <= {name for name in after if name.endswith(gone[-13:])} | {"README.md"}


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


def test_two_workers_write_the_bytes_that_one_writes(
    collected_once: Path, collect_into: CollectHere, tmp_path: Path
) -> None:
    side_by_side = collect_into(tmp_path / "out", "webnlg_tiny", runs=3, workers=2)
    assert sorted(side_by_side.done) == [f"webnlg_tiny/000{at}" for at in range(3)]
    there = parquet_bytes(tmp_path / "out")
    alone = parquet_bytes(collected_once)
    assert len(there) == 8
    assert there == {name: alone[name] for name in there}


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

    def run(bench: Bench, name: str, on_step: Callable[[int], None]) -> Any:
        if name == "0001":
            raise DivergedRunError("training loss is not finite at update 2")
        return whole(bench, name, on_step)

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
    bench = Bench(settings, None)
    every = [*bench.tokenized.values(), *bench.test_set.tokenized]
    assert 0 < result.cut["mini_sentiment_tiny"] == sum(example.cut > 0 for example in every)


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"runs": 1, "workers": 0}])
def test_no_runs_or_no_workers_are_refused(
    make_settings: Callable[..., RunSettings], tmp_path: Path, wrong: dict[str, int]
) -> None:
    with pytest.raises(SettingsError, match="=0 must be at least 1"):
        wanted(make_settings(), tmp_path, **wrong)
