"""Data of a user's own, of any size and kind: it is collected, or one line says why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.tasks.user_tasks import VARIABLE

Command = Callable[..., tuple[int, str, str]]
Collect = Callable[..., tuple[int, str, str]]


def tickets(count: int, **changes: Any) -> list[dict[str, Any]]:
    rows = [{"id": at, "text": f"Number {at}", "label": ("urgent", "later")[at % 2]} for at in range(count)]
    return [row | changes for row in rows]


@pytest.fixture
def collect(command: Command, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Collect:
    """Collect one run of one update on these rows."""
    monkeypatch.setenv(VARIABLE, "")
    task = tmp_path / "tickets.toml"
    task.write_text(
        'name = "tickets"\nprompt = "Ticket: {text}\\nUrgency:"\ntarget = " {label}"\nlabels = [" urgent", " later"]\n'
    )

    def run(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]], *options: object) -> tuple[int, str, str]:
        for name, rows in (("train", train), ("eval", test)):
            path = tmp_path / "data" / "tickets" / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return command(
            "collect", "tickets_tiny", "--task-file", task, "--data", tmp_path / "data", "--output", tmp_path / "out",
            "--base-model", tiny_model_folder, "--learning-rate", 1e-3, "--runs", 1, "--steps", 1, "--workers", 1,
            *options,
        )  # fmt: skip

    return run


def settings(tmp_path: Path) -> dict[str, int]:
    given = DatasetFolder(tmp_path / "out").manifest("tickets_tiny")["settings"]
    return {name: given[name] for name in ("pool_size", "subset", "batch_size", "test_examples")}


def test_sizes_fit_the_rows_and_are_said(collect: Collect, tmp_path: Path) -> None:
    status, out, err = collect(tickets(44), tickets(7), "--dry-run")
    assert status == 0, err
    said = "a pool of 44 (--pool), of which a run trains on 28 (--subset), 7 test examples (--test-examples)"
    assert out.splitlines()[0] == f"tickets_tiny: {said}"
    assert collect(tickets(44), tickets(7))[0] == 0
    assert settings(tmp_path) == {"pool_size": 44, "subset": 28, "batch_size": 4, "test_examples": 7}


def test_what_is_given_is_not_fitted(collect: Collect, tmp_path: Path) -> None:
    options = ("--pool", 20, "--subset", 6, "--test-examples", 3, "--epochs", 2, "--batch-size", 2)
    status, out, err = collect(tickets(44), tickets(7), *options)
    assert status == 0, err
    assert "(--pool)" not in out
    assert settings(tmp_path) == {"pool_size": 20, "subset": 6, "batch_size": 2, "test_examples": 3}
    status, _, err = collect(tickets(44), tickets(7), "--pool", 50, "--output", tmp_path / "other")
    assert (status, err.strip()) == (1, "error: task tickets has 44 train rows, but 50 are needed: give --pool 44")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (tickets(2), tickets(1)),
        (tickets(12, label="urgent"), tickets(4)),
        (tickets(12), tickets(12)),
        (tickets(12, id="a string"), tickets(4, id="another")),
    ],
    ids=["two rows", "one label in all rows", "the test set is the pool", "ids that are strings"],
)
def test_odd_rows_are_collected(
    collect: Collect, train: list[dict[str, Any]], test: list[dict[str, Any]], tmp_path: Path
) -> None:
    status, _, err = collect(train, test)
    assert status == 0, err
    assert settings(tmp_path)["pool_size"] == len(train)
    assert DatasetFolder(tmp_path / "out").finished("tickets_tiny") == ["0000"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([*tickets(3), {"text": " ", "label": "later"}], "train.jsonl:4: field 'text' is empty"),
        ([*tickets(3), {"text": "a", "label": "soon"}], "train.jsonl:4: answer ' soon' is not one of"),
        ([*tickets(3), {"label": "later"}], "train.jsonl:4: field 'text' is missing"),
        ([], "task tickets has 0 train rows, but 1 are needed"),
    ],
)
def test_rows_that_cannot_be_used_are_said_in_a_line(
    collect: Collect, train: list[dict[str, Any]], message: str
) -> None:
    status, _, err = collect(train, tickets(4))
    assert status == 1 and message in err and len(err.strip().splitlines()) == 1


def test_a_size_without_a_plan_of_its_task_has_a_usual_rate(command: Command, tmp_path: Path) -> None:
    status, out, err = command("collect", "rte_14m", "--output", tmp_path / "out", "--dry-run")
    assert status == 0, err
    assert "rte_14m: learning rate 5e-07, the usual one of 14m (--learning-rate)" in out
