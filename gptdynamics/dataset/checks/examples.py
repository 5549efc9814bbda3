"""Rules for the examples of a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from gptdynamics.dataset.checks.findings import Findings, ids_problem
from gptdynamics.dataset.checks.parquet import checked_table
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA
from gptdynamics.tasks import Mixture, Task

Row = dict[str, Any]
# Column, and what is wrong with it.
ColumnProblems = Iterator[tuple[str, str]]


def check_examples(findings: Findings, path: Path, task: Task | Mixture | None, imported: bool = False) -> int | None:
    """Check the examples of a pool or a test set: ids, tasks, texts, and sources of withheld texts.

    Args:
        findings: collects the faults.
        path: `pool.parquet` or `test.parquet`.
        task: of the examples; None if it is unknown.
        imported: whether they may lack what imported examples lack, see `ConfigFacts.imported`.

    Returns:
        One more than the greatest id; None if unknown.
    """
    table = checked_table(findings, path, EXAMPLE_SCHEMA)
    if table is None or table.column_names != EXAMPLE_SCHEMA.names:
        return None
    rows: list[Row] = table.to_pylist()
    ids: list[int | None] = table["id"].to_pylist()
    count = max((key for key in ids if key is not None), default=-1) + 1
    expected = range(count if count < 2 * len(ids) + 1 else len(ids))
    problem = _ascending_problem(ids) if imported else ids_problem(ids, expected)
    if problem or not ids:
        findings.add(path, "id", problem or "there are no examples")
    parts: tuple[Task, ...] = ()
    if task and not imported:
        parts = task.parts if path.stem == "pool" else task.test_parts
    faults: dict[tuple[str, str], list[int | None]] = {}
    for row in rows:
        part = parts[row["id"] % len(parts)] if parts and row["id"] is not None else None
        for rule in IMPORTED_RULES if imported else RULES:
            for fault in rule(row, task if imported else part):
                faults.setdefault(fault, []).append(row["id"])
    for (column, problem_text), keys in faults.items():
        suffix = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        findings.add(path, column, f"example {keys[0]}{suffix}: {problem_text}")
    return None if problem else count


def _ascending_problem(ids: list[int | None]) -> str:
    present = [key for key in ids if key is not None]
    ascending = all(previous < following for previous, following in pairwise(present))
    valid = len(present) == len(ids) and ascending and present[:1] >= [0]
    return "" if valid else "some are null, below 0, or not in ascending order"


def _task_matches(row: Row, task: Task | Mixture | None) -> ColumnProblems:
    if not row["task"] or (task and row["task"] != task.name):
        yield "task", f"{row['task']!r}, not {task.name!r}" if task else "it is empty"


def _source_is_json(row: Row, task: Any) -> ColumnProblems:
    if _source(row) is None:
        yield "source", "not a JSON object"


def _texts_or_their_source(row: Row, task: Any) -> ColumnProblems:
    if row["prompt"] is not None:
        return
    labels = task.labels if task else ()
    if row["references"] is not None or (row["target"] is not None and task and row["target"] not in labels):
        yield "prompt", "it is null, but other texts are not"
    source = _source(row)
    if source is not None and not _names_row(source):
        yield "source", "texts are withheld, but dataset, split and row are not named"


def _texts(row: Row, task: Any) -> ColumnProblems:
    if row["prompt"] is None:
        return
    # A recorded text without a separate prompt is its own reference.
    one_text = row["target"] and row["references"] == [row["target"].strip()]
    for name in ("prompt", "target"):
        if not row[name] and not (one_text and name == "prompt"):
            yield name, "it is empty"
    labels = task.labels if task else ()
    if labels and row["target"] and row["target"] not in labels:
        yield "target", f"{row['target']!r} is not one of {', '.join(map(repr, labels))}"
    references = row["references"]
    if references is None or not all(references):
        yield "references", "they are null or empty"
    elif task and bool(references) != task.generates:
        yield "references", "there are none" if task.generates else "a label task has none"


def _unknown_text_is_null(row: Row, task: Any) -> ColumnProblems:
    if row["prompt"] == "" or row["target"] == "":
        yield "prompt, target", "an unknown text must be null, not empty"


def _row_of_source(row: Row, task: Any) -> ColumnProblems:
    source = _source(row)
    if source is None or not _names_row(source):
        yield "source", "dataset, split and row are not named"


RULES = (_task_matches, _source_is_json, _texts_or_their_source, _texts)
IMPORTED_RULES = (_task_matches, _unknown_text_is_null, _row_of_source)


def _names_row(source: Row) -> bool:
    return {"dataset", "split", "row"} <= source.keys()


def _source(row: Row) -> Row | None:
    try:
        source = json.loads(row["source"] or "")
    except (ValueError, RecursionError):
        return None
    return source if isinstance(source, dict) else None
