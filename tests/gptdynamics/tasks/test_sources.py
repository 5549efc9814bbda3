"""Which rows examples are made of, and their texts again where a release leaves them out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.tasks import get_task, load_examples
from gptdynamics.tasks.sources import ExampleSource, load_sources, restore_texts


def without_texts(example: Example) -> Example:
    label = example.target if get_task(example.task).test_parts[0].labels else ""
    return replace(example, prompt="", target=label, references=())


@pytest.mark.parametrize(
    ("task", "part"),
    [("rte", "pool"), ("webnlg", "test"), ("flan", "pool"), ("flan", "test"), ("mini_triples", "pool")],
)
def test_withheld_texts_come_back_from_the_rows_they_were_made_of(task: str, part: str, rows_folder: Path) -> None:
    there = load_examples(get_task(task), part, 5, rows_folder)
    chosen = there[::-2]
    withheld = [without_texts(example) for example in chosen]
    assert all(example.withheld for example in withheld)
    assert restore_texts(withheld, task, part, rows_folder) == chosen
    sources = [ExampleSource.from_dict(json.loads(json.dumps(ExampleSource.of(each).to_dict()))) for each in chosen]
    assert load_sources(sources, task, part, rows_folder) == {example.id: example for example in chosen}
    assert all(each.digest and not each.label for each in sources)
    assert not any(example.prompt in json.dumps([each.to_dict() for each in sources]) for example in chosen)


def test_examples_with_texts_need_no_rows(tmp_path: Path) -> None:
    example = Example(3, "Is it so?", " yes", task="rte")
    assert restore_texts([example], "rte", "pool", tmp_path / "none") == [example]
    assert load_sources([], "rte", "pool", tmp_path / "none") == {}


def test_other_rows_are_refused(rows_folder: Path, tmp_path: Path) -> None:
    there = load_examples(get_task("rte"), "pool", 4, rows_folder)
    lines = (rows_folder / "rte/train.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "rte").mkdir()
    (tmp_path / "rte/train.jsonl").write_text("\n".join(lines[1:6]), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"rte example 0 was made of row 0 of rte train .*source_index 0.* differs from it"
    ):
        restore_texts([without_texts(example) for example in there], "rte", "pool", tmp_path)
    with pytest.raises(DataError, match="rte example 0 was made of row 0"):
        load_sources([ExampleSource.of(example) for example in there], "rte", "pool", tmp_path)
    # The row is the same by its number, and has another label.
    other = " no" if there[0].target == " yes" else " yes"
    with pytest.raises(DataError, match="differs from it"):
        restore_texts([replace(without_texts(there[0]), target=other)], "rte", "pool", rows_folder)
    with pytest.raises(DataError, match="no such file"):
        restore_texts([without_texts(there[0])], "rte", "pool", tmp_path / "none")


def test_texts_that_are_the_same_may_be_of_another_file(rows_folder: Path) -> None:
    example = load_examples(get_task("rte"), "pool", 1, rows_folder)[0]
    elsewhere = ExampleSource.of(replace(example, source={"dataset": "nyu-mll/glue", "split": "train", "row": "7"}))
    assert load_sources([elsewhere], "rte", "pool", rows_folder) == {0: example}


def test_damaged_plain_values_are_an_error_of_type() -> None:
    for damaged in (
        {},
        {"id": "0", "source": {}},
        {"id": 0, "source": {"row": 1}},
        {"id": 0, "source": {}, "text": ""},
    ):
        with pytest.raises((TypeError, AttributeError)):
            ExampleSource.from_dict(damaged)
