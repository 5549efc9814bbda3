"""What `verify` finds in imported configs, which need not have all that ours have, but must be sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.exchange import Imported

Rows = list[dict[str, Any]]
STEPS = list(range(1, 13))


@pytest.fixture
def imported(sound_release: tuple[Path, Path, Imported], tmp_path: Path) -> Path:
    """An imported dataset folder for one test to change."""
    return Path(shutil.copytree(sound_release[1], tmp_path / "dataset"))


def edited(path: Path, how: Callable[[Rows], Any]) -> None:
    """Change the rows of a file in place."""
    table = read_parquet(path)
    rows = table.to_pylist()
    how(rows)
    write_parquet(pa.Table.from_pylist(rows, schema=table.schema), path)


def all_rows(**values: Any) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for row in rows:
            row.update(values)

    return change


TRAJECTORIES: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "steps that do not ascend": (all_rows(step=[1, *STEPS[:-1]]), "do not increase"),
    "steps below 0": (all_rows(step=[-1, *STEPS[1:]]), "below 0"),
    "steps after the last update": (all_rows(step=[*STEPS[:-1], 13]), "end at 13, but the run has 12 updates"),
    "no steps": (all_rows(step=None), "null in every row"),
    "other steps in one row": (lambda rows: rows[3].update(step=[0, *STEPS[1:]]), "are not those of test example 0"),
    "no generation steps": (all_rows(generation_step=None), "has values"),
    "a loss that is not finite": (lambda rows: rows[0]["loss"].__setitem__(3, float("nan")), "not a finite number"),
    "too few values": (lambda rows: rows[0].update(loss=[1.0]), "1 values for 12 steps"),
    "a BLEU beyond its range": (lambda rows: rows[0]["bleu"].__setitem__(3, 100.5), "is not 0 to 100"),
    "an unknown test example": (lambda rows: rows[0].update(test_id=7), "no such test examples"),
    "a test example twice": (lambda rows: rows[0].update(test_id=1), "more than once"),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_faults_of_trajectories_are_named(imported: Path, name: str) -> None:
    how, words = TRAJECTORIES[name]
    path = DatasetFolder(imported).run_path("webnlg_410m", "0001")
    edited(path, how)
    faults = verify(imported).faults
    assert faults and {fault.file for fault in faults} == {path.relative_to(imported).as_posix()}
    assert any(words in fault.what for fault in faults)


def test_steps_may_begin_at_0_or_late_and_end_early(imported: Path) -> None:
    path = DatasetFolder(imported).run_path("rte_410m", "0001")
    for steps in ([0, *STEPS[1:]], [3, 4, 11]):
        edited(path, all_rows(step=steps, loss=[1.0] * len(steps)))
        assert verify(imported).faults == []


def test_the_best_bleu_is_a_rounding_above_100(imported: Path) -> None:
    edited(
        DatasetFolder(imported).run_path("webnlg_410m", "0001"),
        lambda rows: rows[0]["bleu"].__setitem__(0, 100.00000000000004),
    )
    assert verify(imported).faults == []


def test_values_of_32_bits_are_a_fault(imported: Path) -> None:
    path = DatasetFolder(imported).run_path("rte_410m", "0001")
    table = read_parquet(path)
    narrow = table["loss"].cast(pa.list_(pa.float32()))
    write_parquet(table.set_column(table.column_names.index("loss"), "loss", narrow), path)
    assert [fault.where for fault in verify(imported).faults] == ["loss"]


EXAMPLES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an empty target": (lambda row: row.update(target=""), "null, not empty"),
    "an empty prompt": (lambda row: row.update(prompt=""), "null, not empty"),
    "another task": (lambda row: row.update(task="sst2"), "'sst2', not 'rte'"),
    "no task": (lambda row: row.update(task=None), "None, not 'rte'"),
    "no source": (lambda row: row.update(source=None), "are not named"),
    "a source without row": (lambda row: row.update(source=json.dumps({"dataset": "x"})), "are not named"),
    "an id below 0": (lambda row: row.update(id=-1), "below 0"),
    "an id twice": (lambda row: row.update(id=1), "not in ascending order"),
    "no id": (lambda row: row.update(id=None), "null"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_faults_of_examples_are_named(imported: Path, name: str) -> None:
    how, words = EXAMPLES[name]
    path = DatasetFolder(imported).examples_path("rte", "pool")
    edited(path, lambda rows: how(rows[0]))
    (fault,) = verify(imported).faults
    assert (fault.file, words in fault.what) == ("data/rte_examples/pool.parquet", True)


def test_without_its_origin_a_config_is_held_to_what_ours_have(imported: Path) -> None:
    folder = DatasetFolder(imported)
    manifest = folder.manifest("rte_410m")
    del manifest["origin"]
    folder.manifest_path("rte_410m").write_text(json.dumps(manifest), encoding="utf-8")
    assert folder.origin("rte_410m") is None and folder.origin("flan_14m") is not None
    said = [fault.what for fault in verify(imported).faults]
    assert any("the column is missing" in each for each in said) and any("it is empty" in each for each in said)
