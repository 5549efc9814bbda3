"""Runs made again with pool rows left out: names, batches, files, reading and checking."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.collection.settings import collect_settings
from gptdynamics.configs import RunParts, RunSettings, counterfactual_name, run_name, run_parts, split_of
from gptdynamics.curriculum import draw_curriculum, left_out, run_seed
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.ownership import holds_dataset
from gptdynamics.dataset.run_files import read_run_row
from gptdynamics.dataset.schema import COUNTERFACTUAL_COLUMNS, read_parquet, write_parquet
from gptdynamics.dataset.status import folder_status, status_table
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.hub.merge import _DATASET_FILE
from gptdynamics.plans import Plan, PlanEntry, read_plan
from gptdynamics.plans.table import plan_record
from gptdynamics.settings.collect import CollectCommand

Make = Callable[..., RunSettings]


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_name_says_what_is_repeated(base: int, index: int) -> None:
    name = counterfactual_name(run_name(base), index)
    assert run_parts(name) == RunParts(index, base=run_name(base))
    assert split_of(name) == "counterfactual"


@pytest.mark.parametrize(
    "run", ["c0004", "c0004-7", "c4-0007", "cu0004-0007", "u0004-0007", "c0004-0007-0001", "C0004-0007"]
)
def test_other_names_are_refused(run: str) -> None:
    with pytest.raises(SettingsError, match="is not the name of a run"):
        run_parts(run)


@given(seed=st.integers(0, 99), index=st.integers(0, 40), number=st.integers(0, 40))
def test_a_fifth_of_the_rows_is_left_out_of_otherwise_equal_batches(seed: int, index: int, number: int) -> None:
    settings = RunSettings("rte_nano", 1e-3, seed=seed, pool_size=40, subset=30, batch_size=2, epochs=2)
    base, name = run_name(index), counterfactual_name(run_name(index), number)
    before, gone = draw_curriculum(settings, base), left_out(settings, name)
    visited = {pool_id for batch in before for pool_id in batch}
    assert len(gone) == 6 and set(gone) <= visited and gone == sorted(gone)
    wanted = []
    for batch in before:
        wanted.append([pool_id for pool_id in batch if pool_id not in gone])
    assert draw_curriculum(settings, name) == wanted
    assert run_seed(settings, name) == run_seed(settings, base)
    assert left_out(settings, base) == []


def test_different_numbers_leave_out_different_rows() -> None:
    settings = RunSettings("rte_nano", 1e-3)
    rows = [tuple(left_out(settings, counterfactual_name(base, at))) for base in ("0003", "0004") for at in range(10)]
    assert len(set(rows)) == 20


def plan_of(settings: RunSettings, count: int = 2) -> Plan:
    return Plan("test", (PlanEntry(settings, 6, counterfactuals={"0004": count}),))


@pytest.fixture
def repeated(collected: Path, make_settings: Make, rows_folder: Path) -> Path:
    """Six runs, and the test run of them made again twice."""
    result = collect(CollectSettings(plan_of(make_settings()), collected, rows_folder, workers=1))
    assert result.done == ["rte_tiny/c0004-0000", "rte_tiny/c0004-0001"]
    return collected


def test_a_folder_with_counterfactual_runs_is_sound(repeated: Path, make_settings: Make, tmp_path: Path) -> None:
    settings, folder = make_settings(), DatasetFolder(repeated)
    assert verify(repeated).faults == [] and not verify(repeated).missing
    path = folder.run_path("rte_tiny", "c0004-0001")
    assert path.name == "counterfactual-c0004-0001.parquet" and path.exists()
    row = read_run_row(folder.run_row_path("rte_tiny", "c0004-0001"), "rte_tiny", "c0004-0001")
    assert (row["repeats"], row["left_out"], row["index"]) == ("0004", left_out(settings, "c0004-0001"), 1)
    assert row["curriculum"] == draw_curriculum(settings, "c0004-0001")
    assert folder.finished("rte_tiny")[-3:] == ["0005", "c0004-0000", "c0004-0001"]
    status = next(each for each in folder_status(repeated) if each.config == "rte_tiny")
    assert status.done[-2:] == ["c0004-0000", "c0004-0001"] and status.counts("counterfactual")["done"] == 2
    table = status_table([status])
    assert [str(column.header) for column in table.columns] == ["config", "train", "val", "test", "again", "spent"]
    assert list(table.columns[4].cells) == ["2/2"]
    assert holds_dataset(repeated)
    paths = ["data/rte_tiny_runs/counterfactual-c0004-0001.parquet", "sidecar/rte_tiny/c0004-0001.failed.json"]
    assert all(_DATASET_FILE.fullmatch(path) for path in paths)
    rows = load_dataset(str(repeated), "rte_tiny_runs", cache_dir=str(tmp_path))
    assert rows["counterfactual"]["repeats"] == ["0004", "0004"]
    assert rows["train"].features == rows["counterfactual"].features
    assert len(load_dataset(str(repeated), "rte_tiny", cache_dir=str(tmp_path))["counterfactual"]) > 0


def test_they_are_read_only_when_asked_for(repeated: Path) -> None:
    assert len(read_dynamics(repeated, "rte_tiny").runs) == 6
    every = read_dynamics(repeated, "rte_tiny", counterfactual=True)
    assert every.split("counterfactual").runs == ["c0004-0000", "c0004-0001"]
    assert len(every.split("train", "validation", "test").runs) == 6
    at = every.runs.index("0004")
    np.testing.assert_array_equal(every.values[at, :, 0], every.values[-1, :, 0])
    assert (every.values[at, :, 1:] != every.values[-1, :, 1:]).any()


def test_rows_of_earlier_releases_get_the_columns_with_the_first_counterfactual_run(
    collected: Path, make_settings: Make, rows_folder: Path
) -> None:
    rows = sorted((collected / "data/rte_tiny_runs").glob("*.parquet"))
    for path in rows:
        write_parquet(read_parquet(path).drop_columns(list(COUNTERFACTUAL_COLUMNS)), path)
    assert verify(collected).faults == []
    more = Plan("test", (PlanEntry(make_settings(), 7),))
    collect(CollectSettings(more, collected, rows_folder, workers=1))
    assert "repeats" not in read_parquet(collected / "data/rte_tiny_runs/train-0006.parquet").column_names
    collect(CollectSettings(plan_of(make_settings(), 1), collected, rows_folder, workers=1))
    for path in (collected / "data/rte_tiny_runs").glob("*.parquet"):
        assert read_parquet(path).column_names[-2:] == list(COUNTERFACTUAL_COLUMNS)
    assert verify(collected).faults == []


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("repeats", "0003", "'0003', but its file's name says '0004'"),
        ("left_out", [0], "not the rows that seed 0 leaves out in run c0004-0000"),
        ("curriculum", None, "is not that of run 0004 without the rows left out"),
    ],
)
def test_a_row_that_says_something_else_is_a_fault(
    repeated: Path, make_settings: Make, column: str, value: object, what: str
) -> None:
    path = DatasetFolder(repeated).run_row_path("rte_tiny", "c0004-0000")
    table = read_parquet(path)
    value = draw_curriculum(make_settings(), "0004") if column == "curriculum" else value
    rows = table.to_pylist()
    rows[0][column] = value
    write_parquet(table.from_pylist(rows, schema=table.schema), path)
    (fault,) = verify(repeated).faults
    assert fault.where == column and what in fault.what


def test_plans_name_counterfactual_runs(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    text = '[[config]]\nconfig = "rte_nano"\nruns = 6\nunseen_runs = 1\ncounterfactuals = '
    path.write_text(text + '{ "0004" = 2, "0003" = 1 }\n', encoding="utf-8")
    [entry] = plan = read_plan(path)
    assert entry.run_names[6:] == ["u0000", "c0004-0000", "c0004-0001", "c0003-0000"]
    assert plan_record(plan)["configs"][0]["splits"]["counterfactual"] == 3
    for wrong, message in (('{ "0006" = 1 }', "no run 0006 to repeat"), ('{ "0004" = -1 }', "-1 is not from 0")):
        path.write_text(text + wrong + "\n", encoding="utf-8")
        with pytest.raises(SettingsError, match=message):
            read_plan(path)
    path.write_text(text + '["0004"]\n', encoding="utf-8")
    with pytest.raises(DataError, match="is not of the form"):
        read_plan(path)


def test_the_command_names_counterfactual_runs(tmp_path: Path) -> None:
    asked = CollectCommand(tmp_path, ("rte_nano",), runs=6, counterfactuals=("0004=2", "0003=1"))
    [entry] = collect_settings(asked).plan
    assert entry.counterfactuals == {"0004": 2, "0003": 1}
    with pytest.raises(SettingsError, match="not of the form RUN=COUNT"):
        collect_settings(CollectCommand(tmp_path, ("rte_nano",), runs=6, counterfactuals=("0004",)))


def test_the_manifest_keeps_the_greater_counts(repeated: Path, make_settings: Make, rows_folder: Path) -> None:
    collect(CollectSettings(plan_of(make_settings(), 1), repeated, rows_folder, workers=1))
    manifest = json.loads((repeated / "manifests/rte_tiny.json").read_text(encoding="utf-8"))
    assert manifest["planned"] == {"runs": 6, "unseen_runs": 0, "counterfactuals": {"0004": 2}}


def test_counterfactual_runs_can_be_measured_less_often(tmp_path: Path, make_settings: Make, rows_folder: Path) -> None:
    settings = make_settings(counterfactual_every=3, epochs=3)
    collect(CollectSettings(plan_of(settings, 1), tmp_path, rows_folder, workers=1))
    assert verify(tmp_path).faults == []
    config, steps = settings.config, list(range(7))
    assert read_dynamics(tmp_path, config).step.tolist() == steps
    every, dense = read_dynamics(tmp_path, config, counterfactual=True), read_dynamics(tmp_path, config)
    assert every.step.tolist() == [0, 3, 6]
    assert (every.split("train", "validation", "test").values == dense.values[..., [0, 3, 6]]).all()
    row = read_run_row(DatasetFolder(tmp_path).run_row_path(config, "c0004-0000"), config, "c0004-0000")
    assert (row["eval_every"], settings.for_run("0004").eval_every) == (3, 1)
