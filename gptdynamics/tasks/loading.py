"""Examples of a task: generated, from local JSONL, or from the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.parsing import parse_object, replace_surrogates
from gptdynamics.tasks.mixture import Mixture
from gptdynamics.tasks.task import HubSource, Row, Split, Task

# Key in an example's source: how many unpaired surrogates in its row were replaced by U+FFFD.
REPLACED = "replaced_surrogates"
_SPLITS: dict[str, Split] = {"pool": "train", "test": "eval"}
_Located = tuple[Row, str, dict[str, str]]
# White space, and the byte order mark of UTF-8.
_BLANK = b" \t\r\n\f\v\xef\xbb\xbf"


def _jsonl_rows(path: Path, task: Task) -> Iterator[_Located]:
    number = 0
    for line, content in enumerate(_lines(path, task), start=1):
        if not content.strip(_BLANK):
            continue
        row = _parse_row(content, f"{path}:{line}")
        origin = {name: str(value) for name, value in row.items() if name.startswith("source_")}
        source = {"dataset": task.name, "split": path.stem, "row": str(number), **origin}
        number += 1
        yield row, f"{path}:{line}", source | {"licence": task.licence()}


def _parse_row(content: bytes, where: str) -> Row:
    try:
        return parse_object(content, where)
    except DataError as error:
        if content.lstrip(_BLANK).startswith(b"["):
            raise DataError(f"{error}. Write one JSON object per line, without a list around them") from error
        raise


def _hub_rows(task: Task, split: Split, count: int) -> Iterator[_Located]:
    """The first `count` rows, because a split on the Hub may have millions."""
    if task.hub is None:
        raise DataError(f"task {task.name} has no Hub dataset: give local rows with --data DIR")
    from datasets import load_dataset

    hub, hub_split = task.hub, task.hub.splits[split]
    name = f"{hub.dataset} {hub.config}" if hub.config else hub.dataset
    files = {"data_files": {hub_split: hub.files[split]}} if hub.files else {}
    try:
        revision = _commit(hub)
        rows = load_dataset(hub.dataset, hub.config, split=hub_split, revision=revision, **files)
    except Exception as error:  # a failed download raises errors of several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"cannot load {name} from the Hub: {reason}. Give local rows with --data DIR") from error
    for number, row in enumerate(islice(rows, count)):
        where = f"{name} {hub_split}[{number}]"
        try:
            adapted = task.adapt(row)
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            missing = error.args[0] if isinstance(error, KeyError) and error.args else None
            if isinstance(missing, str) and missing not in row:
                raise DataError(
                    f"{where}: column {error} is gone; the dataset now has {_columns(row)}. "
                    "Give local rows with --data DIR, or a task of your own"
                ) from error
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{where}: not a row of {task.name} ({reason}); it has {_columns(row)}") from error
        source = {"dataset": hub.dataset, "config": hub.config or "", "split": hub_split, "row": str(number)}
        source["revision"] = revision
        yield adapted, where, source | {"licence": task.licence()}


def _commit(hub: HubSource) -> str:
    """The commit that a source's revision points to, so that rows name what was read even if it is a branch."""
    if re.fullmatch("[0-9a-f]{40}", hub.revision):
        return hub.revision
    from huggingface_hub import HfApi

    resolved = HfApi().resolve_revision(hub.dataset, repo_type="dataset", revision=hub.revision)
    return str(resolved.resolved)


def _columns(row: Row) -> str:
    """Names of columns, and of what is nested in them: `id, translation (de, en)`."""
    return ", ".join(
        f"{name} ({', '.join(value)})" if isinstance(value, Mapping) else name for name, value in row.items()
    )


def _generated_rows(task: Task, rows: Iterable[Row], split: Split) -> Iterator[_Located]:
    for number, row in enumerate(rows):
        source = {"dataset": task.name, "split": split, "row": str(number), "licence": task.licence()}
        yield row, f"{task.name} {split}[{number}]", source


def _task_examples(
    task: Task, split: Split, count: int, data: Path | None, spread: tuple[int, int], instruct: bool
) -> list[Example]:
    """The first `count` examples of a task; ids are `row * spread[0] + spread[1]`."""
    generate: Any = getattr(task, "rows", None)
    if generate is not None:
        located = _generated_rows(task, generate(split), split)
    elif data is not None:
        located = _jsonl_rows(_jsonl_path(task, split, data), task)
    else:
        located = _hub_rows(task, split, count)
    examples = []
    for number, (row, where, source) in enumerate(located):
        template = task.draw_template(split, number) if instruct else None
        cleaned, replaced = replace_surrogates(dict(row))
        if replaced:
            source = replace_surrogates(source)[0] | {REPLACED: str(replaced)}
        examples.append(task.example(cleaned, number * spread[0] + spread[1], where, source, template))
    if len(examples) < count:
        option = "--pool" if split == "train" else "--test-examples"
        remedy = f"give {option} {len(examples)}" if examples else "give some"
        raise DataError(f"task {task.name} has {len(examples)} {split} rows, but {count} are needed: {remedy}")
    return examples[:count]


def load_examples(task: Task | Mixture, part: str, count: int, data: Path | None = None) -> list[Example]:
    """The first `count` examples of a task's pool or test set; of a mixture, of each of its tasks.

    Every row of a file is checked, used or not; blank lines are skipped. An unpaired surrogate, which JSON can escape
    but UTF-8 cannot hold, becomes U+FFFD, and the example's source counts them. Ids are row numbers; in a mixture of P
    tasks, row r of its task p has id `r * P + p`, so that an example keeps its id when more rows are loaded.

    Args:
        task: the task or mixture.
        part: `pool` (train rows) or `test` (eval rows).
        count: how many examples.
        data: folder with `<task>/train.jsonl` and `<task>/eval.jsonl`; None: generated or from the Hub.

    Raises:
        DataError: a row is missing a field, or there are fewer rows than `count`.
    """
    split = _SPLITS[part]
    parts = task.parts if part == "pool" else task.test_parts
    examples = [
        example
        for index, part_task in enumerate(parts)
        for example in _task_examples(part_task, split, count, data, (len(parts), index), task.scenario == "instruct")
    ]
    return sorted(examples, key=lambda example: example.id)


def count_rows(task: Task | Mixture, part: str, data: Path | None) -> int | None:
    """Number of rows for a pool or a test set; for a mixture, of its smallest task. None if they are on the Hub.

    Raises DataError if a file is missing or cannot be read.
    """
    split = _SPLITS[part]
    counts = []
    for part_task in task.parts if part == "pool" else task.test_parts:
        generate: Any = getattr(part_task, "rows", None)
        if generate is not None:
            counts.append(len(generate(split)))
        elif data is None:
            return None
        else:
            counts.append(
                sum(bool(line.strip(_BLANK)) for line in _lines(_jsonl_path(part_task, split, data), part_task))
            )
    return min(counts)


def _jsonl_path(task: Task, split: Split, data: Path) -> Path:
    return data / task.name / f"{split}.jsonl"


def _lines(path: Path, task: Task) -> Iterator[bytes]:
    """The lines of a file; raises DataError if it is missing or cannot be read."""
    if not path.exists():
        raise DataError(f"{path}: no such file; --data DIR needs DIR/{task.name}/train.jsonl and eval.jsonl")
    try:
        with path.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def replaced_note(task: str, examples: Iterable[Example]) -> str | None:
    """One line about rows whose texts had unpaired surrogates; None if there are no such rows."""
    rows = sum(REPLACED in example.source for example in examples)
    if not rows:
        return None
    have = "1 row has" if rows == 1 else f"{rows} rows have"
    return f"{task}: {have} an unpaired surrogate, such as half of a cut emoji; it is replaced by U+FFFD"
