"""Runs whose manifest has no settings are checked against themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.verify import verify
from tests.gptdynamics.dataset.verify.damage import ROW, RUN, at, column, inside, manifest, same_batches_swapped
from tests.gptdynamics.dataset.verify.run_cases import RUN_CASES


def without_settings(root: Path, config: str) -> Path:
    manifest(settings={})(root / "manifests" / f"{config}.json")
    return root


@pytest.mark.parametrize("config", ["rte_tiny", "webnlg_tiny", "flan_tiny"])
def test_runs_recorded_elsewhere_are_checked_against_themselves(gradients: Path, config: str) -> None:
    without_settings(gradients, config)
    column("curriculum", same_batches_swapped)(gradients / f"data/{config}_runs/train-0001.parquet")
    assert verify(gradients).faults == []


@pytest.mark.parametrize(
    "name",
    [
        "steps not from 0",
        "steps not increasing",
        "steps cut short",
        "row twice",
        "loss not a number",
        "half right",
        "loss of too few steps",
        "column lost",
        "too few rates",
        "run",
        "no curriculum",
        "row truncated",
    ],
)
def test_faults_of_runs_recorded_elsewhere_are_named(few: Path, name: str) -> None:
    case = RUN_CASES[name]
    case.damage(without_settings(few, "rte_tiny") / case.file)
    assert [(fault.file, fault.where) for fault in verify(few).faults] == [(case.file, case.where)]


@pytest.mark.parametrize(
    ("file", "damage", "where", "what"),
    [
        (ROW, column("curriculum", inside(0, 1, [0, 1, 12, 2])), "curriculum", "id 12 is not one of the 12 examples"),
        (ROW, column("curriculum", inside(0, 1, [0, -1, 2])), "curriculum", "it has ids below 0"),
        (ROW, column("learning_rate", inside(0, 1, -1.0)), "learning_rate", "rates are below 0 or not finite"),
        (RUN, column("test_id", at(4, 7)), "test_id", "7: no such test examples"),
        (RUN, column("step", lambda values: [None] * 5), "step", "it is null in every row"),
    ],
)
def test_what_runs_recorded_elsewhere_refer_to_must_be_there(
    few: Path, file: str, damage: Callable[[Path], None], where: str, what: str
) -> None:
    damage(without_settings(few, "rte_tiny") / file)
    (fault,) = verify(few).faults
    assert (fault.file, fault.where) == (file, where) and fault.what.startswith(what)


def test_a_task_that_is_not_known_is_one_fault_and_its_runs_are_checked_all_the_same(few: Path) -> None:
    for path in list(few.rglob("*webnlg*")):
        path.rename(path.with_name(path.name.replace("webnlg", "poems")))
    manifest(config="poems_tiny")(few / "manifests/poems_tiny.json")
    for run in (few / "data/poems_tiny_runs").iterdir():
        column("config", at(0, "poems_tiny"))(run)
    DatasetFolder(few).write_card()
    (unknown,) = verify(few).faults
    assert unknown.file == "manifests/poems_tiny.json"
    assert unknown.what.startswith("unknown task 'poems'; known tasks: rte, ") and "--task-file" in unknown.what
    column("bleu", inside(0, 0, -1.0))(few / "data/poems_tiny/train-0000.parquet")
    assert [fault.where for fault in verify(few).faults] == ["", "bleu"]
