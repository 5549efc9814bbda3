"""The examples of a task."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from gptdynamics.dataset.checks.facts import COLLECTED, Requirements
from gptdynamics.dataset.checks.findings import AGAIN, Findings, ids_problem
from gptdynamics.dataset.checks.parquet import checked_table
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA
from gptdynamics.tasks import Mixture, Task


def check_examples(
    findings: Findings, path: Path, task: Task | Mixture | None, requires: Requirements = COLLECTED
) -> int | None:
    """Check the examples of a pool or a test set: ids, tasks, texts (or none, with their source).

    Args:
        findings: gathers the faults.
        path: `pool.parquet` or `test.parquet`.
        task: whose examples; None if it is unknown.
        requires: what they must hold.

    Returns:
        One more than the greatest id; None if that is not known.
    """
    table = checked_table(findings, path, EXAMPLE_SCHEMA)
    if table is None or table.column_names != EXAMPLE_SCHEMA.names:
        return None
    rows: list[dict[str, Any]] = table.to_pylist()
    ids: list[int | None] = table["id"].to_pylist()
    count = max((at for at in ids if at is not None), default=-1) + 1
    wanted = range(count if count < 2 * len(ids) + 1 else len(ids))
    problem = ids_problem(ids, wanted) if requires.consecutive_ids else _own_ids_problem(ids)
    if problem or not ids:
        findings.add(path, "id", problem or "there are no examples")
    parts: tuple[Task, ...] = ()
    if task and requires.targets:
        parts = task.parts if path.stem == "pool" else task.test_parts
    found: dict[tuple[str, str], list[int | None]] = {}
    for row in rows:
        part = parts[row["id"] % len(parts)] if parts and row["id"] is not None else None
        problems = _problems(row, part) if requires.targets else _input_problems(row, task)
        for column, said in problems:
            found.setdefault((column, said), []).append(row["id"])
    for (column, said), which in found.items():
        more = f" and {len(which) - 1} more" if len(which) > 1 else ""
        findings.add(path, column, f"example {which[0]}{more}: {said}", AGAIN)
    return None if problem else count


def _own_ids_problem(ids: list[int | None]) -> str:
    known = [at for at in ids if at is not None]
    ascending = all(before < after for before, after in pairwise(known))
    sound = len(known) == len(ids) and ascending and known[:1] >= [0]
    return "" if sound else "some are null, below 0, or not in ascending order"


def _input_problems(row: dict[str, Any], task: Task | Mixture | None) -> list[tuple[str, str]]:
    """What is wrong with an example whose prompt and target are one text: column, and how."""
    problems = []
    if not row["task"] or (task and row["task"] != task.name):
        problems.append(("task", f"{row['task']!r}, not {task.name!r}" if task else "it is empty"))
    if row["prompt"] == "" or row["target"] == "":
        problems.append(("prompt, target", "a text that is not known is null, not empty"))
    source = _source(row["source"])
    if source is None or not {"dataset", "split", "row"} <= source.keys():
        problems.append(("source", "it does not say which dataset, split and row it is"))
    return problems


def _problems(row: dict[str, Any], task: Task | None) -> list[tuple[str, str]]:
    """What is wrong with an example: column, and how."""
    problems: list[tuple[str, str]] = []
    labels = task.labels if task else ()
    if not row["task"] or (task and row["task"] != task.name):
        problems.append(("task", f"{row['task']!r}, not {task.name!r}" if task else "it is empty"))
    source = _source(row["source"])
    if source is None:
        problems.append(("source", "not a JSON object"))
    if row["prompt"] is None:
        if row["references"] is not None or (row["target"] is not None and task and row["target"] not in labels):
            problems.append(("prompt", "it is null, but other texts are not"))
        if source is not None and not {"dataset", "split", "row"} <= source.keys():
            problems.append(("source", "no texts, and not which dataset, split and row they are"))
        return problems
    # A recorded text without a prompt of its own is its own reference.
    whole = row["target"] and row["references"] == [row["target"].strip()]
    empty = [name for name in ("prompt", "target") if not row[name] and not (whole and name == "prompt")]
    problems += [(name, "it is empty") for name in empty]
    if labels and row["target"] and row["target"] not in labels:
        problems.append(("target", f"{row['target']!r} is not one of {', '.join(map(repr, labels))}"))
    references = row["references"]
    if references is None or not all(references):
        problems.append(("references", "they are null or empty"))
    elif task and bool(references) != task.generates:
        problems.append(("references", "there are none" if task.generates else "a label task has none"))
    return problems


def _source(text: str | None) -> dict[str, Any] | None:
    try:
        source = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return source if isinstance(source, dict) else None
