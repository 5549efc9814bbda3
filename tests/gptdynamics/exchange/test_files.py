"""Single files of the authors' layout, sound and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptdynamics.errors import DataError
from gptdynamics.exchange.files import MetricFile, ReleaseFile, read_batches, read_metric
from gptdynamics.exchange.findings import Finding, Findings
from gptdynamics.exchange.release import Release

BATCHES = [{"step": 1, "samples_id": [3, 1]}, {"step": 2, "samples_id": [0, 2]}, {"step": 3, "samples_id": [1, 0]}]


def trajectory(key: Any, *points: tuple[Any, Any]) -> dict[str, Any]:
    return {"id": key, "loss_trajectory": [{"step": step, "loss": value} for step, value in points]}


SOUND = [trajectory(4, (1, 0.5), (2, 0.25)), trajectory(2, (1, 1.5), (2, 1))]


@pytest.fixture
def batches(tmp_path: Path) -> Callable[..., tuple[list[list[int]], list[str]]]:
    """The batches read of these lines (texts, or objects), and what was noted."""

    def read(*rows: Any, last: bool = False) -> tuple[list[list[int]], list[str]]:
        findings = Findings()
        found = read_batches(ReleaseFile(written(tmp_path / "train_samples_id.json", rows), "run/x", findings, last))
        return found, [str(each) for each in findings]

    return read


@pytest.fixture
def metric(tmp_path: Path) -> Callable[..., tuple[MetricFile, list[str]]]:
    """The trajectories read of these lines, and what was noted."""

    def read(*rows: Any, last: bool = False) -> tuple[MetricFile, list[str]]:
        findings = Findings()
        found = read_metric(ReleaseFile(written(tmp_path / "all_loss_trajectory.out", rows), "run/x", findings, last))
        return found, [str(each) for each in findings]

    return read


def written(path: Path, rows: tuple[Any, ...]) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def test_sound_batches_are_read_as_they_are(batches: Callable[..., Any]) -> None:
    assert batches(*BATCHES) == ([[3, 1], [0, 2], [1, 0]], [])


def test_a_batch_that_is_there_again_counts_once_and_is_noted(batches: Callable[..., Any]) -> None:
    found, notes = batches(BATCHES[0], BATCHES[1], BATCHES[1], BATCHES[2])
    assert found == [[3, 1], [0, 2], [1, 0]]
    assert notes == ["run/x: step 2 occurs more than once with the same batch; one of them is kept"]


def test_steps_out_of_order_blank_lines_and_other_fields_are_noted(batches: Callable[..., Any]) -> None:
    found, notes = batches(BATCHES[1], b"", BATCHES[0] | {"loss": 0.1}, BATCHES[2])
    assert found == [[3, 1], [0, 2], [1, 0]]
    assert len(notes) == 2
    assert "loss" in notes[0] and "sorted" in notes[1]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "it is empty"),
        ([b"not json"], "it is empty"),
        ([BATCHES[0], BATCHES[2]], "step 2 is missing"),
        ([BATCHES[1], BATCHES[2]], "step 1 is missing"),
        ([{"step": 0, "samples_id": [1]}, *BATCHES], "batch of step 0"),
        ([*BATCHES, {"step": 2, "samples_id": [0, 3]}], "step 2 has two different batches"),
        ([BATCHES[0], {"step": 2, "samples_id": []}, BATCHES[2]], "step 2 is missing"),
        ([BATCHES[0], {"step": 2, "samples_id": [1, True]}, BATCHES[2]], "step 2 is missing"),
        ([BATCHES[0], {"step": 2**31, "samples_id": [1]}, {"step": 2**31 - 1, "samples_id": [1]}], "is missing"),
        ([BATCHES[0], b'{"step": 2, "samples_id": [1', BATCHES[2]], "step 2 is missing"),
    ],
)
def test_a_curriculum_that_is_not_known_is_refused(batches: Callable[..., Any], rows: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        batches(*rows)


def test_sound_trajectories_keep_the_order_of_the_file_and_every_digit(metric: Callable[..., Any]) -> None:
    odd = 0.1234567890123456789
    found, notes = metric(*SOUND, trajectory(9, (1, odd), (2, 7)))
    assert (found.ids, found.step, notes) == ([4, 2, 9], [1, 2], [])
    np.testing.assert_array_equal(found.values, [[0.5, 0.25], [1.5, 1.0], [odd, 7.0]])
    assert found.values.dtype == np.float64


def test_a_step_that_is_there_again_with_its_value_counts_once(metric: Callable[..., Any]) -> None:
    again = [trajectory(4, (1, 0.5), (2, 0.25), (2, 0.25)), trajectory(2, (1, 1.5), (2, 1), (2, 1))]
    found, notes = metric(*again)
    np.testing.assert_array_equal(found.values, metric(*SOUND)[0].values)
    assert notes == [
        "run/x: step 2 occurs more than once with the same value (in up to 2 trajectories); one of them is kept"
    ]


def test_unordered_steps_repeated_examples_and_bad_lines_are_noted(metric: Callable[..., Any]) -> None:
    found, notes = metric(
        trajectory(4, (2, 0.25), (1, 0.5)), SOUND[1], SOUND[1], b'{"id": 5, "loss', b"\xff", trajectory("6", (1, 1.0)),
        trajectory(7), trajectory(8, (1, "a"), (2, 1)), trajectory(8, (1, True), (2, 1)), {"id": 9}, [1],
        {"id": 9, "loss_trajectory": [3]}, {"id": 9, "loss_trajectory": [{"step": 1}]},
        {"id": 9, "loss_trajectory": [{"step": 1, "loss": 10**399}]},
    )  # fmt: skip
    np.testing.assert_array_equal(found.values, [[0.5, 0.25], [1.5, 1.0]])
    assert notes == [
        "run/x: lines 4, 5, 11 are no JSON object; left out",
        "run/x: lines 6, 7, 8 and 5 more are no trajectory of a test example; left out",
        "run/x: test example 2 occurs more than once; one of them is kept",
        "run/x: the steps of 1 trajectories are not in order; sorted",
    ]


def test_a_test_example_that_lacks_a_step_is_left_out_and_named(metric: Callable[..., Any]) -> None:
    found, notes = metric(*SOUND, trajectory(5, (2, 1.0)))
    assert found.ids == [4, 2]
    assert notes == ["run/x: test example 5 lacks step 1; those test examples are left out of this file"]


def test_fields_that_the_layout_does_not_have_are_named_once(metric: Callable[..., Any]) -> None:
    points = [{"step": 1, "loss": 0.5, "time": 3}, {"step": 2, "loss": 0.25, "host": "a"}]
    found, notes = metric({"id": 4, "loss_trajectory": points, "task": "x"}, SOUND[1])
    assert found.ids == [4, 2]
    assert notes == ["run/x: it has fields that the layout does not have (host, task, time); left out"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "it is empty"),
        ([b"{}"], "it is empty"),
        ([trajectory(4, (1, 0.5), (1, 0.6))], "test example 4 has two different values at step 1"),
        ([SOUND[0], trajectory(4, (1, 0.5), (2, 0.3))], "test example 4 has two different trajectories"),
    ],
)
def test_trajectories_that_contradict_themselves_are_refused(metric: Callable[..., Any], rows: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        metric(*rows)


def test_the_last_of_different_values_counts_where_that_is_asked_for(
    batches: Callable[..., Any], metric: Callable[..., Any]
) -> None:
    other = {"step": 2, "samples_id": [3, 3]}
    assert batches(*BATCHES, other, last=True) == (
        [[3, 1], [3, 3], [1, 0]],
        ["run/x: step 2 has different batches; the last is kept"],
    )
    found, notes = metric(
        trajectory(4, (1, 9.0), (1, 0.5), (2, 0.25)), trajectory(2, (1, 3.0), (2, 3.0)), SOUND[1], last=True
    )
    np.testing.assert_array_equal(found.values, metric(*SOUND)[0].values)
    assert notes == ["run/x: test example 2, 4 has different values of the same steps; the last is kept"]
    assert batches(*BATCHES, BATCHES[1], last=True) == batches(*BATCHES, BATCHES[1])


def test_examples_are_read_from_every_file_of_a_task(tmp_path: Path) -> None:
    folder = tmp_path / "sft_tasks" / "rte"
    folder.mkdir(parents=True)
    (tmp_path / "it_tasks" / "eval").mkdir(parents=True)
    written(folder / "rte_0_1_train.json", ({"id": 1, "input": "b\n", "label": "yes"}, {"id": 0, "input": "a"}))
    written(folder / "rte_2_2_train.json", ({"id": 2, "input": "c"}, {"id": 1, "input": "other"}))
    written(folder / "rte_0_0_eval.json", ({"id": 0, "input": "t"},))
    written(folder / "notes.txt", ())
    written(tmp_path / "it_tasks" / "eval" / "flan_eval_0_0.json", ())
    findings = Findings()
    found = Release(tmp_path, findings).examples()
    assert [(each.id, each.prompt, each.target) for each in found["rte"].pool] == [
        (0, "a", ""),
        (1, "b\n", ""),
        (2, "c", ""),
    ]
    assert [each.source["row"] for each in found["rte"].pool] == ["1", "0", "0"]
    assert json.loads(found["rte"].pool[1].source["fields"]) == {"label": "yes"}
    assert {each.source["licence"] for each in found["rte"].pool} == {"unknown"}
    assert [bool(each.pool and each.test) for each in (found["rte"], found["flan"])] == [True, False]
    assert {(each.place, each.done) for each in findings} == {
        ("sft_tasks/rte/notes.txt", "not read"),
        ("sft_tasks/rte/rte_2_2_train.json", "the first is kept"),
        ("it_tasks/eval/flan_eval_0_0.json", "not read"),
    }


@pytest.mark.parametrize(
    "row",
    [
        {"id": 0},
        {"id": -1, "input": "a"},
        {"id": "0", "input": "a"},
        {"id": 0, "input": ""},
        {"id": 2**31, "input": "a"},
        {"id": 0.0, "input": "a"},
    ],
)
def test_a_row_that_is_no_example_is_left_out(tmp_path: Path, row: Any) -> None:
    (tmp_path / "sft_tasks").mkdir()
    written(tmp_path / "sft_tasks" / "rte_0_1_train.json", (row, {"id": 5, "input": "b"}))
    findings = Findings()
    assert [each.id for each in Release(tmp_path, findings).examples()["rte"].pool] == [5]
    place = "sft_tasks/rte_0_1_train.json"
    assert findings == [Finding(place, "line 1 is no example with an id and an input", "left out")]


def test_half_of_a_surrogate_pair_is_replaced_and_noted(tmp_path: Path) -> None:
    (tmp_path / "sft_tasks").mkdir()
    written(tmp_path / "sft_tasks" / "rte_0_1_train.json", ({"id": 0, "input": "a\ud800"},))
    findings = Findings()
    (example,) = Release(tmp_path, findings).examples()["rte"].pool
    assert example.prompt == "a\ufffd"
    what = "1 line has an unpaired surrogate"
    assert findings == [Finding("sft_tasks/rte_0_1_train.json", what, "it is replaced by U+FFFD")]


def test_a_finding_is_one_line_whatever_a_file_is_called() -> None:
    assert str(Finding("runs/a\nb\x1b[2J", "odd", "left out")) == "runs/a\ufffdb\ufffd[2J: odd; left out"
