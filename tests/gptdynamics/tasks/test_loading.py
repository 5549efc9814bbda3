from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.tokens import tokenize_example, tokenize_text
from gptdynamics.tasks import get_single_task, get_task, load_examples, task_names
from tests.hub.server import Hub

SHARED_TASKS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks"
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
        ("rte", RTE_ROW | {"premise": "  "}, "field 'premise' is empty. Fill it in, or leave the row out"),
        ("rte", RTE_ROW | {"premise": 3}, "field 'premise' must be a str, not int. Write it in quotes"),
        ("rte", RTE_ROW | {"premise": None}, "field 'premise' must be a str, not NoneType"),
        ("rte", RTE_ROW | {"label": "maybe"}, "answer 'maybe' is not one of ' yes', ' no'"),
        ("rte", '{"premise": "x", ', "not a JSON object"),
        ("rte", "[1, 2]", "not a JSON object"),
        ("rte", "null", "not a JSON object"),
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
    with pytest.raises(DataError, match="task rte has 3 eval rows, but 4 are needed"):
        load_examples(get_task("rte"), "test", 4, tmp_path)


def test_a_missing_file_is_named_with_what_data_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rte/train\.jsonl: no such file; --data DIR needs DIR/rte/train\.jsonl"):
        load_examples(get_task("rte"), "pool", 1, tmp_path)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="unknown task 'rtx'; known tasks: " + ", ".join(task_names())):
        get_task("rtx")


def test_metrics_are_those_of_label_or_generation_tasks() -> None:
    for task in ("rte", "sst2", "boolq", "mini_sentiment"):
        assert get_task(task).metrics == ("loss", "accuracy")
    for task in ("webnlg", "wmt16", "cnn_dm", "mini_triples"):
        assert get_task(task).metrics == ("loss", "bleu", "rougeL")


# Rows of the Hub: `datasets.load_dataset` is replaced, nothing is asked for.


def hub_has(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]] | Exception) -> list[Any]:
    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> list[dict[str, Any]]:
        asked.append((names, options))
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    names_commits(monkeypatch)
    return asked


def names_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch of the one task that has no commit is at one."""
    from huggingface_hub import HfApi

    def resolve_revision(api: HfApi, id: str, *, repo_type: str, revision: str) -> SimpleNamespace:
        assert (id, repo_type, revision) == ("GEM/web_nlg", "dataset", "refs/convert/parquet")
        return SimpleNamespace(resolved=CONVERTED)

    monkeypatch.setattr(HfApi, "resolve_revision", resolve_revision)


CONVERTED = "c" * 40
GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
GLUE_ROW = {"sentence1": "The cat sleeps.", "sentence2": "A cat rests.", "label": 1, "idx": 0}

# For each task a row of its Hub dataset, and the local row that says the same.
HUB_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rte": (GLUE_ROW, RTE_ROW | {"label": "not_entailment"}),
    "sst2": ({"sentence": "a warm film ", "label": 1, "idx": 0}, {"sentence": "a warm film", "label": "positive"}),
    "boolq": (
        {"question": "is it so", "answer": False, "passage": "It is not."},
        {"question": "is it so", "label": "false", "passage": "It is not."},
    ),
    "webnlg": (
        {"gem_id": "w-0", "input": WEBNLG_ROW["triples"], "target": WEBNLG_ROW["references"][0], "references": []},
        WEBNLG_ROW,
    ),
    "wmt16": ({"translation": {"de": "Ein Haus.", "en": "A house."}}, {"de": "Ein Haus.", "en": "A house."}),
    "cnn_dm": (
        {"article": "A cat was found.", "highlights": "Cat found .\nIt is well .", "id": "ab12"},
        {"article": "A cat was found.", "highlights": "Cat found .\nIt is well ."},
    ),
}


@pytest.mark.parametrize("task", HUB_ROWS)
@pytest.mark.parametrize(("part", "split"), [("pool", "train"), ("test", "eval")])
def test_rows_of_the_hub_give_the_same_examples_as_local_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, part: str, split: str
) -> None:
    there_row, local_row = HUB_ROWS[task]
    write_lines(tmp_path, task, [local_row], split)
    (local,) = load_examples(get_task(task), part, 1, tmp_path)
    hub_has(monkeypatch, [there_row])
    (there,) = load_examples(get_task(task), part, 1)
    assert (there.id, there.prompt, there.target) == (local.id, local.prompt, local.target)
    assert (there.references, there.task) == (local.references, local.task)


def test_a_hub_row_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub_has(monkeypatch, [GLUE_ROW])
    (there,) = load_examples(get_task("rte"), "test", 1)
    assert asked == [(("nyu-mll/glue", "rte"), {"split": "validation", "revision": GLUE})]
    where = {"dataset": "nyu-mll/glue", "config": "rte", "split": "validation", "row": "0", "revision": GLUE}
    assert there.source == where | {"licence": "cc-by-4.0 (GLUE card)"}


@pytest.mark.parametrize("task", HUB_ROWS)
def test_hub_sources_are_pinned(task: str) -> None:
    hub = get_single_task(task).hub
    assert hub is not None
    assert set(hub.splits) == {"train", "eval"}
    assert re.fullmatch("[0-9a-f]{40}", hub.revision) or hub.revision == "refs/convert/parquet"


def test_no_more_rows_of_the_hub_are_read_than_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_has(monkeypatch, [GLUE_ROW, GLUE_ROW, GLUE_ROW | {"label": -1}])
    assert len(load_examples(get_task("rte"), "pool", 2)) == 2
    hub_has(monkeypatch, [GLUE_ROW] * 2)
    with pytest.raises(DataError, match="task rte has 2 train rows, but 3 are needed"):
        load_examples(get_task("rte"), "pool", 3)


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("no network\nlong trace"),
        ValueError("unknown split"),
        RuntimeError(""),
        FileNotFoundError("x"),
        Exception("an error of another library"),
    ],
)
@pytest.mark.parametrize(("task", "name"), [("rte", "nyu-mll/glue rte"), ("boolq", "google/boolq")])
def test_a_hub_that_fails_gives_one_line_that_mentions_data(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, task: str, name: str
) -> None:
    hub_has(monkeypatch, failure)
    with pytest.raises(DataError, match=rf"^cannot load {name} from the Hub: .+\. Give local rows with --data DIR$"):
        load_examples(get_task(task), "pool", 1)


@pytest.mark.parametrize(
    ("task", "now", "message"),
    [
        ("rte", {"text_a": "x", "sentence2": "y", "label": 0}, "'sentence1' is gone; the dataset now has text_a, "),
        ("sst2", {"text": "x", "label": 0}, "'sentence' is gone; the dataset now has text, label"),
        ("boolq", {"question": "x", "passage": "y", "label": 1}, "'answer' is gone; the dataset now has question, "),
        ("webnlg", {"triples": [], "target": "x"}, "'input' is gone; the dataset now has triples, target"),
        ("wmt16", {"de": "x", "en": "y"}, "'translation' is gone; the dataset now has de, en"),
        (
            "wmt16",
            {"translation": {"ger": "x", "en": "y"}, "id": 1},
            r"'translation.de' is gone; the dataset now has translation \(ger, en\), id",
        ),
        ("wmt16", {"translation": "x"}, "'translation.de' is gone; the dataset now has translation"),
        ("cnn_dm", {"document": "x", "summary": "y"}, "'article' is gone; the dataset now has document, summary"),
    ],
)
def test_columns_that_changed_on_the_hub_are_named(
    monkeypatch: pytest.MonkeyPatch, task: str, now: dict[str, Any], message: str
) -> None:
    hub_has(monkeypatch, [HUB_ROWS[task][0], now])
    with pytest.raises(DataError, match=rf"\[1\]: column {message}"):
        load_examples(get_task(task), "test", 2)


def test_a_column_of_another_type_is_refused_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_has(monkeypatch, [{"sentence": None, "label": 1}])
    with pytest.raises(
        DataError, match=r"glue sst2 train\[0\]: not a row of sst2 .AttributeError.*; it has sentence, label"
    ):
        load_examples(get_task("sst2"), "pool", 1)
    hub_has(monkeypatch, [HUB_ROWS["webnlg"][0] | {"input": "a | b | c"}])
    with pytest.raises(DataError, match=r"web_nlg train\[0\]: field 'triples' must be a list, not str"):
        load_examples(get_task("webnlg"), "pool", 1)


@pytest.mark.parametrize("label", [-1, 2, "entailment?", True])
def test_a_hub_row_without_a_known_label_is_refused(monkeypatch: pytest.MonkeyPatch, label: object) -> None:
    hub_has(monkeypatch, [GLUE_ROW | {"label": label}])
    with pytest.raises(DataError, match=rf"validation\[0\]: answer '{re.escape(str(label))}' is not one of"):
        load_examples(get_task("rte"), "test", 1)


@pytest.mark.parametrize(("task", "change"), [("sst2", {"label": -1}), ("boolq", {"answer": None})])
def test_other_tasks_refuse_unlabelled_hub_rows_too(
    monkeypatch: pytest.MonkeyPatch, task: str, change: dict[str, Any]
) -> None:
    hub_has(monkeypatch, [HUB_ROWS[task][0] | change])
    with pytest.raises(DataError, match=r"train\[0\]: answer '.*' is not one of ' "):
        load_examples(get_task(task), "pool", 1)


# The Hub's files: folders laid out as its repositories are, read by `datasets` itself.

CARD = """---
configs:
- config_name: {config}
  data_files:
  - {{split: train, path: {folder}/train-*}}
  - {{split: {eval}, path: {folder}/{eval}-*}}
---
"""
REPOSITORIES = {
    "rte": ("rte", "rte", "validation"),
    "sst2": ("sst2", "sst2", "validation"),
    "boolq": ("default", "data", "validation"),
    "wmt16": ("de-en", "de-en", "test"),
    "cnn_dm": ("3.0.0", "3.0.0", "validation"),
}


def repository(root: Path, task: str) -> Path:
    """A repository of the Hub with one row a split, and others that are not to be taken for them."""
    import pyarrow as pa
    from pyarrow import parquet

    row = HUB_ROWS[task][0]
    if task == "webnlg":
        other = row | {"input": ["not | to be | read"]}
        files = {"en/train/0000": row, "en/validation/0000": row, "en/challenge_train_sample/0000": other}
        files |= {"ru/train/0000": other, "ru/validation/0000": other}
    else:
        config, folder, eval_split = REPOSITORIES[task]
        files = {f"{folder}/train-00000-of-00001": row, f"{folder}/{eval_split}-00000-of-00001": row}
        root.mkdir(parents=True)
        (root / "README.md").write_text(CARD.format(config=config, folder=folder, eval=eval_split))
    schema = pa.schema([("references", pa.list_(pa.string()))]) if task == "webnlg" else None
    for name, content in files.items():
        path = root / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([content])
        if schema is not None:
            place = table.schema.get_field_index("references")
            table = table.set_column(place, schema.field(0), table["references"].cast(schema.field(0).type))
        parquet.write_table(table, path)
    return root


def put_files(hub: Hub, id: str, folder: Path) -> str:
    """Put a repository's files on the loopback Hub; the commit."""
    if ("dataset", id) not in hub.store.repositories:
        hub.store.create("dataset", id, hub.store.users[hub.store.add_user(id.split("/")[0])])
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return hub.store.put("dataset", id, files)


@pytest.mark.parametrize("task", ["rte", "wmt16", "webnlg"])
def test_rows_come_from_the_pinned_revision_and_columns_that_changed_are_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str
) -> None:
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    datasets.disable_progress_bars()
    source = get_single_task(task).hub
    assert source is not None
    folder = repository(tmp_path / "there", task)
    pinned = put_files(hub, source.dataset, folder)
    there = hub.store.repositories["dataset", source.dataset]
    # The Hub's own conversion is a branch; the others are commits, which have other names here.
    names = there.branches if task == "webnlg" else there.tags
    names[source.revision] = pinned
    table = {"renamed": ["x"]} if task != "wmt16" else {"translation": [{"ger": "x", "en": "y"}]}
    for path in folder.rglob("*.parquet"):
        parquet.write_table(pa.table(table), path)
    changed = put_files(hub, source.dataset, folder)

    (example,) = load_examples(get_task(task), "test", 1)
    write_lines(tmp_path, task, [HUB_ROWS[task][1]], "eval")
    (local,) = load_examples(get_task(task), "test", 1, tmp_path)
    assert (example.prompt, example.target, example.references) == (local.prompt, local.target, local.references)
    assert example.source["revision"] == (pinned if task == "webnlg" else source.revision)

    names[source.revision] = changed
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(type(get_single_task(task)), "hub", replace(source, revision=changed))
    gone = {"rte": "'sentence1' is gone; the dataset now has renamed", "webnlg": "'input' is gone; the dataset now has"}
    gone["wmt16"] = r"'translation.de' is gone; the dataset now has translation \(ger, en\)"
    with pytest.raises(DataError, match=rf"\[0\]: column {gone[task]}.*\. Give local rows with --data DIR"):
        load_examples(get_task(task), "test", 1)


@pytest.mark.parametrize("task", HUB_ROWS)
def test_datasets_reads_a_repository_laid_out_as_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str
) -> None:
    import datasets

    hub, real = get_single_task(task).hub, datasets.load_dataset
    assert hub is not None
    folder = repository(tmp_path / hub.dataset, task)

    def load_dataset(path: str, *names: Any, revision: str, **options: Any) -> Any:
        assert (path, revision) == (hub.dataset, CONVERTED if task == "webnlg" else hub.revision)
        return real(str(folder), *names, cache_dir=str(tmp_path / "cache"), **options)

    datasets.disable_progress_bars()
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    names_commits(monkeypatch)
    for part, split in (("pool", "train"), ("test", "eval")):
        (there,) = load_examples(get_task(task), part, 1)
        write_lines(tmp_path, task, [HUB_ROWS[task][1]], split)
        (local,) = load_examples(get_task(task), part, 1, tmp_path)
        assert (there.prompt, there.target, there.references) == (local.prompt, local.target, local.references)
        with pytest.raises(DataError, match=f"task {task} has 1 {split} rows, but 2 are needed"):
            load_examples(get_task(task), part, 2)


@real_rows
def test_a_real_prompt_longer_than_the_context_is_cut_from_the_left(tiny_base: BaseModel) -> None:
    example = load_examples(get_task("rte"), "test", 1, SHARED_TASKS)[0]
    fitted = tokenize_example(tiny_base.tokenizer, example, tiny_base.context, end_of_text=False)
    whole = tokenize_text(tiny_base.tokenizer, example.prompt)
    assert fitted.cut == len(whole) - len(fitted.prompt) > 0
    assert whole[-len(fitted.prompt) :] == fitted.prompt
    assert len(fitted) == tiny_base.context
