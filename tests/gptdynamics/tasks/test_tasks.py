"""The six real tasks: prompts, targets, references, instructions, and what is refused."""

from __future__ import annotations

import json
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.errors import DataError
from gptdynamics.models.nano import MODEL_FOLDER
from gptdynamics.tasks import Split, Task, get_single_task, load_examples

SHARED_TASKS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks"
real_rows = pytest.mark.skipif(not SHARED_TASKS.is_dir(), reason="no shared/data/tasks beside the repository")

REAL = ("rte", "sst2", "boolq", "webnlg", "wmt16", "cnn_dm")
LABEL_TASKS = ("rte", "sst2", "boolq", "mini_sentiment")
SPLITS: tuple[Split, ...] = ("train", "eval")

# For each task a row, its plain prompt, its target and its references.
ROWS: dict[str, tuple[dict[str, Any], str, str, tuple[str, ...]]] = {
    "rte": (
        {"premise": "Ann sings in Rome.", "hypothesis": "Ann can sing.", "label": "not_entailment"},
        "Ann sings in Rome.\nQuestion: Ann can sing. Yes or no?\nAnswer:",
        " no",
        (),
    ),
    "sst2": (
        {"sentence": "a warm , funny film .", "label": "positive"},
        "Review: a warm , funny film .\nSentiment:",
        " positive",
        (),
    ),
    "boolq": (
        {
            "question": "is the moon a star ??",
            "passage": "The Moon orbits the Earth.",
            "label": "false",
            "title": "Moon",
        },
        "The Moon orbits the Earth.\nQuestion: is the moon a star?\nAnswer:",
        " no",
        (),
    ),
    "webnlg": (
        {
            "triples": ["Ann_Lee | birthPlace | Rome"],
            "references": ["Ann Lee is from Rome.", "Rome is where Ann was born."],
        },
        "Facts: Ann Lee | birth place | Rome\nText:",
        " Ann Lee is from Rome.",
        ("Ann Lee is from Rome.", "Rome is where Ann was born."),
    ),
    "wmt16": (
        {"de": "Das Haus ist groß.", "en": "The house is large."},
        "German: Das Haus ist groß.\nEnglish:",
        " The house is large.",
        ("The house is large.",),
    ),
    "cnn_dm": (
        {"article": "A cat (CNN) was found. It is well.", "highlights": "Cat found .\nIt is well ."},
        "A cat (CNN) was found. It is well.\nSummary:",
        " Cat found . It is well .",
        ("Cat found . It is well .",),
    ),
}


def example(task: Task, row: dict[str, Any], template: int | None = None) -> Any:
    return task.example(row, 0, "here", {}, template)


def with_text(task: str, text: str) -> dict[str, Any]:
    """A row in which every text but the label is `text`."""

    def replaced(name: str, value: Any) -> Any:
        if name == "triples":
            return [f"{text} | {text} | {text}"]
        return value if name == "label" else [text] if isinstance(value, list) else text

    return {name: replaced(name, value) for name, value in ROWS[task][0].items()}


@pytest.mark.parametrize("name", REAL)
def test_a_row_gives_this_prompt_target_and_references(name: str) -> None:
    row, prompt, target, references = ROWS[name]
    made = example(get_single_task(name), row)
    assert (made.prompt, made.target, made.references, made.task) == (prompt, target, references, name)
    assert "template" not in made.source


@pytest.mark.parametrize("name", REAL)
def test_every_task_declares_a_plain_prompt_and_at_least_five_different_instructions(name: str) -> None:
    task = get_single_task(name)
    templates = [task.plain, *task.instructions]
    assert len(set(task.instructions)) == len(task.instructions) >= 5
    assert not any(template[-1].isspace() for template in templates)
    used = [{slot for _, slot, _, _ in string.Formatter().parse(template) if slot} for template in templates]
    assert all(slots == used[0] for slots in used), "an instruction leaves out a part of the row"


@pytest.mark.parametrize(("name", "long"), [("boolq", "passage"), ("cnn_dm", "article")])
def test_instructions_follow_a_long_text_because_prompts_are_cut_from_the_left(name: str, long: str) -> None:
    for template in get_single_task(name).instructions:
        before, after = template.split("{" + long + "}")
        assert len(before) < len(after)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("text", ["{", "}", "{0} {premise} {{}}", "{x!r:>9}", "%s $x \\n"])
def test_braces_in_texts_stay_as_they_are(name: str, text: str) -> None:
    task = get_single_task(name)
    for template in (None, *range(len(task.instructions))):
        assert text in example(task, with_text(name, text), template).prompt


@pytest.mark.parametrize("name", REAL)
def test_templates_are_drawn_by_task_split_and_row_and_all_are_used(name: str) -> None:
    task = get_single_task(name)
    drawn = {split: [task.draw_template(split, number) for number in range(200)] for split in SPLITS}
    assert drawn == {split: [type(task)().draw_template(split, number) for number in range(200)] for split in SPLITS}
    assert drawn["train"] != drawn["eval"]
    counts = Counter(drawn["train"])
    assert set(counts) == set(range(len(task.instructions)))
    assert min(counts.values()) > 200 / len(task.instructions) / 2


def test_drawn_templates_are_the_same_on_every_machine_and_differ_between_tasks() -> None:
    drawn = {name: [get_single_task(name).draw_template("train", number) for number in range(8)] for name in REAL}
    assert drawn["rte"] == [5, 1, 1, 2, 3, 4, 1, 1]
    assert drawn["rte"] != drawn["sst2"]


@pytest.mark.parametrize("name", LABEL_TASKS)
def test_labels_are_single_tokens_of_nano(name: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))
    labels = get_single_task(name).labels
    ids = [tokenizer.encode(label, add_special_tokens=False).ids for label in labels]
    assert [len(each) for each in ids] == [1] * len(labels)
    assert len({each[0] for each in ids}) == len(labels)


@pytest.mark.parametrize(
    ("name", "label"), [("rte", "yes"), ("sst2", "neutral"), ("boolq", "True"), ("boolq", "maybe")]
)
def test_an_unknown_label_is_refused_with_row_and_value(tmp_path: Path, name: str, label: str) -> None:
    path = tmp_path / name / "eval.jsonl"
    path.parent.mkdir()
    rows = [ROWS[name][0], ROWS[name][0] | {"label": label}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=rf"eval\.jsonl:2: answer '.?{label}' is not one of ' "):
        load_examples(get_single_task(name), "test", 2, tmp_path)


class Count(Task):
    """A task whose rows have numbers."""

    name = "count"
    fields = {"text": str, "words": int}
    plain = "{text}\nWords:"

    def target(self, row: Any) -> str:
        return f" {row['words']}"


def test_fields_may_be_numbers() -> None:
    made = example(Count(), {"text": "a b", "words": 2})
    assert (made.prompt, made.target, made.references) == ("a b\nWords:", " 2", ("2",))
    with pytest.raises(DataError, match="here: field 'words' must be a int, not str"):
        example(Count(), {"text": "a b", "words": "2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plain": "{txt}\nWords:"}, "count cannot make an example of this row .KeyError: 'txt'."),
        ({"prompt": lambda self, row: " "}, "prompt ' ' must be a text that is not empty"),
        ({"target": lambda self, row: " "}, "target ' ' must be a text that is not empty"),
        ({"target": lambda self, row: " " + row["n"]}, "KeyError: 'n'"),
        ({"references": lambda self, row: []}, "no references to score generated text against"),
    ],
)
def test_what_a_class_makes_of_a_row_is_checked(changes: dict[str, Any], message: str) -> None:
    kind = type("Changed", (Count,), changes)
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        example(kind(), {"text": "a b", "words": 2})


# Real rows.


def raw(name: str, split: Split) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHARED_TASKS / name / f"{split}.jsonl").read_text("utf-8").splitlines()]


@real_rows
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("rte", (2000, 277)),
        ("sst2", (2000, 872)),
        ("boolq", (1970, 1000)),
        ("webnlg", (2000, 868)),
        ("wmt16", (2000, 1000)),
        ("cnn_dm", (500, 200)),
    ],
)
def test_every_real_row_loads(name: str, counts: tuple[int, int]) -> None:
    task = get_single_task(name)
    for part, count in zip(("pool", "test"), counts, strict=True):
        examples = load_examples(task, part, count, SHARED_TASKS)
        assert [each.id for each in examples] == list(range(count))
        assert all(each.prompt.strip() and not each.prompt[-1].isspace() for each in examples)
        assert all(each.target[0] == " " and not each.target[1].isspace() for each in examples)
        if task.labels:
            assert {each.target for each in examples} == set(task.labels)
        else:
            assert all(each.target == f" {each.references[0]}" for each in examples)
        with pytest.raises(DataError, match=f"task {name} has {count} .* rows, but {count + 1} are needed"):
            load_examples(task, part, count + 1, SHARED_TASKS)


@real_rows
def test_prompts_of_real_rows_hold_their_fields() -> None:
    loaded = {name: load_examples(get_single_task(name), "test", 200, SHARED_TASKS) for name in REAL}
    rows = {name: raw(name, "eval")[:200] for name in REAL}

    for made, row in zip(loaded["sst2"], rows["sst2"], strict=True):
        assert made.prompt == f"Review: {row['sentence']}\nSentiment:"
        assert made.target == f" {row['label']}"
    for made, row in zip(loaded["boolq"], rows["boolq"], strict=True):
        assert made.prompt == f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        assert made.target == {"true": " yes", "false": " no"}[row["label"]]
    for made, row in zip(loaded["wmt16"], rows["wmt16"], strict=True):
        assert (made.prompt, made.target) == (f"German: {row['de']}\nEnglish:", f" {row['en']}")
        assert made.references == (row["en"],)
    for made, row in zip(loaded["cnn_dm"], rows["cnn_dm"], strict=True):
        assert made.prompt == f"{row['article']}\nSummary:"
        assert made.target.split() == row["highlights"].split()
        assert "\n" not in made.target
    for made, row in zip(loaded["rte"], rows["rte"], strict=True):
        assert made.prompt == f"{row['premise']}\nQuestion: {row['hypothesis']} Yes or no?\nAnswer:"
    assert not any("_" in made.prompt for made in loaded["webnlg"])
