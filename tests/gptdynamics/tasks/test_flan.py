"""The mixture `flan`: ids, order, instructions, and what a mixture may not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.tasks import Mixture, get_single_task, get_task, load_examples, task_names
from gptdynamics.tasks.mini_sentiment import MiniSentiment

SHARED_TASKS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks"
real_rows = pytest.mark.skipif(not SHARED_TASKS.is_dir(), reason="no shared/data/tasks beside the repository")

PARTS = ["rte", "sst2", "boolq", "webnlg", "wmt16", "cnn_dm"]
MADE = 12


def row(task: str, number: int) -> dict[str, Any]:
    text = f"text {number}"
    return {
        "rte": {"premise": text, "hypothesis": text, "label": "entailment"},
        "sst2": {"sentence": text, "label": "negative"},
        "boolq": {"passage": text, "question": text, "label": "true"},
        "webnlg": {"triples": [f"{text} | is | {text}"], "references": [text]},
        "wmt16": {"de": text, "en": text},
        "cnn_dm": {"article": text, "highlights": text},
    }[task]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows of each task and split, with its number in their texts."""
    root = tmp_path_factory.mktemp("rows")
    for task in PARTS:
        (root / task).mkdir()
        for split in ("train", "eval"):
            lines = [json.dumps(row(task, number)) + "\n" for number in range(MADE)]
            (root / task / f"{split}.jsonl").write_text("".join(lines))
    return root


def test_flan_is_six_tasks_of_which_five_are_followed() -> None:
    flan = get_task("flan")
    assert isinstance(flan, Mixture)
    assert (flan.name, flan.scenario, flan.metrics) == ("flan", "instruct", ("loss", "accuracy", "bleu", "rougeL"))
    assert [task.name for task in flan.parts] == PARTS
    assert [task.name for task in flan.test_parts] == PARTS[:5]
    assert "flan" in task_names()


def test_a_single_task_is_its_own_only_part() -> None:
    task = get_task("rte")
    assert (task.scenario, task.parts, task.test_parts) == ("finetune", (task,), (task,))


@pytest.mark.parametrize(("part", "parts"), [("pool", PARTS), ("test", PARTS[:5])])
def test_ids_are_contiguous_and_say_row_and_task(rows: Path, part: str, parts: list[str]) -> None:
    examples = load_examples(get_task("flan"), part, 4, rows)
    assert [example.id for example in examples] == list(range(4 * len(parts)))
    assert [example.task for example in examples] == parts * 4
    for example in examples:
        assert example.source["row"] == str(example.id // len(parts))
        assert f"text {example.id // len(parts)}" in example.prompt


@pytest.mark.parametrize("part", ["pool", "test"])
def test_an_example_keeps_its_id_and_prompt_when_more_are_asked_for(rows: Path, part: str) -> None:
    few, more = (load_examples(get_task("flan"), part, count, rows) for count in (3, MADE))
    assert more[: len(few)] == few


def test_recorded_templates_make_the_prompts(rows: Path) -> None:
    examples = load_examples(get_task("flan"), "pool", MADE, rows)
    for example in examples:
        task, number = get_single_task(example.task), int(example.source["row"])
        made = task.example(row(task.name, number), example.id, "", {}, int(example.source["template"]))
        assert made.prompt == example.prompt != task.prompt(row(task.name, number))
        assert (made.target, made.references) == (example.target, example.references)
        assert int(example.source["template"]) == task.draw_template("train", number)


def test_a_part_with_too_few_rows_is_named(rows: Path) -> None:
    with pytest.raises(DataError, match=f"task rte has {MADE} train rows, but {MADE + 1} are needed"):
        load_examples(get_task("flan"), "pool", MADE + 1, rows)


def test_a_bad_row_of_a_part_is_refused_where_it_stands(rows: Path, tmp_path: Path) -> None:
    for task in PARTS[:2]:
        (tmp_path / task).mkdir()
        text = (rows / task / "train.jsonl").read_text()
        (tmp_path / task / "train.jsonl").write_text(text.replace("negative", "neutral") if task == "sst2" else text)
    with pytest.raises(DataError, match=r"sst2/train\.jsonl:1: answer ' neutral' is not one of"):
        load_examples(get_task("flan"), "pool", 2, tmp_path)


def test_a_mixture_is_no_single_task() -> None:
    with pytest.raises(SettingsError, match="flan is a mixture of tasks"):
        get_single_task("flan")


@pytest.mark.parametrize(
    ("parts", "followed", "message"),
    [
        ([], ["rte"], "needs tasks to train on"),
        (["rte"], [], "tasks to measure"),
        (["rte", "rte"], ["rte"], "has rte twice"),
        (["rte"], ["sst2"], "measures sst2 without training on it"),
    ],
)
def test_a_mixture_without_sense_is_refused(parts: list[str], followed: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=f"mixture odd .*{message}"):
        Mixture("odd", tuple(map(get_single_task, parts)), tuple(map(get_single_task, followed)))


def test_a_mixture_needs_instructions() -> None:
    task = MiniSentiment()
    with pytest.raises(SettingsError, match="mini_sentiment has no instructions"):
        Mixture("odd", (task,), (task,))


@real_rows
def test_the_real_pool_is_200_rows_of_each_task() -> None:
    pool = load_examples(get_task("flan"), "pool", 200, SHARED_TASKS)
    test = load_examples(get_task("flan"), "test", 200, SHARED_TASKS)
    assert [example.id for example in pool] == list(range(1200))
    assert [example.id for example in test] == list(range(1000))
    assert "cnn_dm" not in {example.task for example in test}
    assert all(not example.prompt[-1].isspace() and example.target[0] == " " for example in (*pool, *test))
    for task in get_task("flan").parts:
        drawn = {example.source["template"] for example in pool if example.task == task.name}
        assert drawn == {str(number) for number in range(len(task.instructions))}


@real_rows
def test_more_rows_than_a_part_has_are_refused() -> None:
    with pytest.raises(DataError, match="task rte has 277 eval rows, but 278 are needed"):
        load_examples(get_task("flan"), "test", 278, SHARED_TASKS)
    with pytest.raises(DataError, match="task cnn_dm has 500 train rows, but 501 are needed"):
        load_examples(get_task("flan"), "pool", 501, SHARED_TASKS)
