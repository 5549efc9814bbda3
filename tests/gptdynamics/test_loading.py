from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.base_model import BaseModel
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.tasks import get_task, load_examples, task_names
from gptdynamics.tokens import tokenize_example, tokenize_text

SHARED_TASKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"
real_rows = pytest.mark.skipif(not SHARED_TASKS.is_dir(), reason="no shared/data/tasks beside the repository")

RTE_ROW: dict[str, Any] = {"premise": "The cat sleeps.", "hypothesis": "A cat rests.", "label": "entailment"}
WEBNLG_ROW: dict[str, Any] = {"triples": ["The_cat | isIn | garden"], "references": ["The cat is in the garden."]}


def write_lines(folder: Path, task: str, lines: list[Any], split: str = "eval") -> Path:
    path = folder / task / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_local_row_becomes_an_example_that_says_where_it_came_from(tmp_path: Path) -> None:
    write_lines(tmp_path, "rte", [RTE_ROW, RTE_ROW | {"label": "not_entailment", "source_index": 17}])
    first, second = load_examples(get_task("rte"), "test", 2, tmp_path)
    assert first.prompt == "The cat sleeps.\nQuestion: A cat rests. Yes or no?\nAnswer:"
    assert (first.id, first.target, first.references, first.task) == (0, " yes", (), "rte")
    assert (second.id, second.target) == (1, " no")
    licence = "cc-by-4.0 (GLUE card)"
    assert first.source == {"dataset": "rte", "split": "eval", "row": "0", "licence": licence}
    assert second.source["source_index"] == "17"


def test_webnlg_prompt_has_plain_words_and_every_reference_is_kept(tmp_path: Path) -> None:
    row = {
        "triples": ["Alba_Iulia | isPartOf | Alba_County", 'A.C._Milan | ISSN_number | "12-3 | 4"'],
        "references": ["One.", "Two."],
    }
    write_lines(tmp_path, "webnlg", [row], "train")
    (example,) = load_examples(get_task("webnlg"), "pool", 1, tmp_path)
    assert example.prompt == (
        "Facts: Alba Iulia | is part of | Alba County; A.C. Milan | issn number | 12-3 | 4\nText:"
    )
    assert (example.target, example.references) == (" One.", ("One.", "Two."))


@pytest.mark.parametrize(
    ("task", "bad", "message"),
    [
        ("rte", {"premise": "x", "label": "entailment"}, "field 'hypothesis' is missing"),
        ("rte", RTE_ROW | {"premise": "  "}, "field 'premise' is empty"),
        ("rte", RTE_ROW | {"premise": None}, "field 'premise' must be a str, not NoneType"),
        ("rte", RTE_ROW | {"label": "maybe"}, "answer 'maybe' is not one of ' yes', ' no'"),
        ("rte", '{"premise": "x", ', "not a JSON object"),
        ("rte", "[1, 2]", "not a JSON object"),
        ("rte", "", "not a JSON object"),
        ("webnlg", {"triples": ["a | b | c"]}, "field 'references' is missing"),
        ("webnlg", WEBNLG_ROW | {"references": []}, "field 'references' is empty"),
        ("webnlg", WEBNLG_ROW | {"references": ["x", " "]}, "field 'references' is empty"),
        ("webnlg", WEBNLG_ROW | {"references": "x"}, "field 'references' must be a list, not str"),
        ("webnlg", WEBNLG_ROW | {"references": [1]}, "field 'references' must be a list of str"),
        (
            "webnlg",
            WEBNLG_ROW | {"triples": ["a | b"]},
            "triple 'a | b' must be written as `subject |",
        ),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line_even_where_it_is_not_used(
    tmp_path: Path, task: str, bad: Any, message: str
) -> None:
    good = RTE_ROW if task == "rte" else WEBNLG_ROW
    path = write_lines(tmp_path, task, [good, good, bad])
    with pytest.raises(DataError) as error:
        load_examples(get_task(task), "test", 1, tmp_path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert message in str(error.value)


def test_a_line_that_is_not_utf_8_is_refused_by_file_and_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "rte", [RTE_ROW])
    path.write_bytes(path.read_bytes() + json.dumps(RTE_ROW).replace("cat", "gr\xfcn").encode("latin-1"))
    with pytest.raises(DataError, match=f"{path}:2: not UTF-8"):
        load_examples(get_task("rte"), "test", 1, tmp_path)


def test_too_few_rows_are_refused_with_both_counts(tmp_path: Path) -> None:
    write_lines(tmp_path, "rte", [RTE_ROW] * 3)
    with pytest.raises(DataError, match="task rte has 3 eval rows, 4 are asked for"):
        load_examples(get_task("rte"), "test", 4, tmp_path)


def test_a_missing_file_is_named_with_what_data_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rte/train\.jsonl: no such file; --data DIR needs DIR/rte/train\.jsonl"):
        load_examples(get_task("rte"), "pool", 1, tmp_path)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="unknown task 'rtx'; known tasks: " + ", ".join(task_names())):
        get_task("rtx")


def test_metrics_are_those_of_label_or_generation_tasks() -> None:
    assert get_task("rte").metrics == ("loss", "accuracy")
    assert get_task("webnlg").metrics == ("loss", "bleu", "rougeL")


# Rows of the Hub: `datasets.load_dataset` is replaced, nothing is asked for.


def hub_has(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]] | Exception) -> list[Any]:
    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> list[dict[str, Any]]:
        asked.append((names, options))
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


GLUE_ROW = {"sentence1": "The cat sleeps.", "sentence2": "A cat rests.", "label": 1, "idx": 0}


def test_rows_of_the_hub_give_the_same_examples_as_local_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = hub_has(monkeypatch, [GLUE_ROW])
    (there,) = load_examples(get_task("rte"), "test", 1)
    assert asked == [(("nyu-mll/glue", "rte"), {"split": "validation", "revision": "main"})]
    write_lines(tmp_path, "rte", [RTE_ROW | {"label": "not_entailment"}])
    (local,) = load_examples(get_task("rte"), "test", 1, tmp_path)
    assert (there.prompt, there.target) == (local.prompt, local.target)
    assert there.source["dataset"] == "nyu-mll/glue"

    gem = {"input": WEBNLG_ROW["triples"], "target": "The cat is in the garden.", "references": []}
    hub_has(monkeypatch, [gem])
    (there,) = load_examples(get_task("webnlg"), "pool", 1)
    write_lines(tmp_path, "webnlg", [WEBNLG_ROW], "train")
    (local,) = load_examples(get_task("webnlg"), "pool", 1, tmp_path)
    assert (there.prompt, there.target, there.references) == (local.prompt, local.target, local.references)


@pytest.mark.parametrize(
    "failure",
    [ConnectionError("no network\nlong trace"), ValueError("unknown split"), RuntimeError(""), FileNotFoundError("x")],
)
def test_a_hub_that_fails_gives_one_line_that_mentions_data(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    hub_has(monkeypatch, failure)
    with pytest.raises(DataError, match=r"cannot load nyu-mll/glue \(rte\) from the Hub: .*--data DIR$") as error:
        load_examples(get_task("rte"), "pool", 1)
    assert "\n" not in str(error.value)


def test_columns_that_changed_on_the_hub_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_has(monkeypatch, [GLUE_ROW, {"text_a": "x", "sentence2": "y", "label": 0}])
    with pytest.raises(DataError) as error:
        load_examples(get_task("rte"), "test", 1)
    assert str(error.value) == (
        "nyu-mll/glue rte validation[1]: column 'sentence1' is gone; the dataset now has text_a, sentence2, label"
    )


@pytest.mark.parametrize("label", [-1, 2, "entailment?"])
def test_a_hub_row_without_a_known_label_is_refused(monkeypatch: pytest.MonkeyPatch, label: object) -> None:
    hub_has(monkeypatch, [GLUE_ROW | {"label": label}])
    with pytest.raises(DataError, match=rf"validation\[0\]: answer '{str(label).replace('?', '.')}' is not one of"):
        load_examples(get_task("rte"), "test", 1)


@real_rows
@pytest.mark.parametrize(
    ("task", "part", "rows"),
    [("rte", "pool", 2000), ("rte", "test", 277), ("webnlg", "pool", 2000), ("webnlg", "test", 868)],
)
def test_every_real_row_loads(task: str, part: str, rows: int) -> None:
    examples = load_examples(get_task(task), part, rows, SHARED_TASKS)
    assert [example.id for example in examples] == list(range(rows))
    assert all(example.prompt.strip() and not example.prompt[-1].isspace() for example in examples)
    assert all(example.target.startswith(" ") and "  " not in example.target[:3] for example in examples)
    if task == "rte":
        assert {example.target for example in examples} == {" yes", " no"}
    else:
        assert all(example.target == f" {example.references[0]}" for example in examples)
        assert not any("_" in example.prompt for example in examples)


@real_rows
def test_a_real_prompt_longer_than_the_context_is_cut_from_the_left(tiny_base: BaseModel) -> None:
    example = load_examples(get_task("rte"), "test", 1, SHARED_TASKS)[0]
    fitted = tokenize_example(tiny_base.tokenizer, example, tiny_base.context, end_of_text=False)
    whole = tokenize_text(tiny_base.tokenizer, example.prompt)
    assert fitted.cut == len(whole) - len(fitted.prompt) > 0
    assert whole[-len(fitted.prompt) :] == fitted.prompt
    assert len(fitted) == tiny_base.context
