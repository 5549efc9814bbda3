"""Examples in the authors' layout: JSON lines `{"id", "input"}` in `sft_tasks/` and `it_tasks/`."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptdynamics.dataset.checks.findings import some
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.jsonlines import is_count, read_lines
from gptdynamics.exchange.names import UNKNOWN, example_file

FOLDERS = ("sft_tasks", "it_tasks")


@dataclass(frozen=True)
class TaskExamples:
    """Examples of a task, in the order of their ids.

    Attributes:
        pool: training examples.
        test: test examples.
    """

    pool: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)


def read_examples(root: Path, findings: Findings) -> dict[str, TaskExamples]:
    """The examples of every task of a release. Its files do not say where a prompt ends: the target is left empty.

    Args:
        root: the release.
        findings: gathers what is wrong with files and rows.
    """
    examples: dict[str, dict[str, dict[int, Example]]] = defaultdict(lambda: {"pool": {}, "test": {}})
    for path in sorted(path for name in FOLDERS for path in (root / name).rglob("*") if path.is_file()):
        place = path.relative_to(root).as_posix()
        if name := example_file(path.name):
            task, part = name
            try:
                _read_file(path, place, task, part, examples[task][part], findings)
            except DataError as error:
                findings.add(place, str(error), "not read")
        elif not path.name.startswith("."):
            findings.add(place, "it is not named <task>_..._train.json or <task>_..._eval.json", "not read")
    return {
        task: TaskExamples(**{part: [rows[key] for key in sorted(rows)] for part, rows in parts.items()})
        for task, parts in sorted(examples.items())
    }


def _read_file(path: Path, place: str, task: str, part: str, examples: dict[int, Example], findings: Findings) -> None:
    """Add the examples of a file to those that were read before; of several with the same id, the first counts."""
    source = {
        "dataset": "the paper authors' release",
        "split": "train" if part == "pool" else "eval",
        "file": place,
        "licence": UNKNOWN,
    }
    repeated: list[int] = []
    faults, empty = len(findings), True
    for number, (key, text, extra) in read_lines(path, place, findings, _parse, "example with an id and an input"):
        empty = False
        if key in examples:
            repeated.append(key)
            continue
        fields = {"fields": json.dumps(extra, sort_keys=True)} if extra else {}
        examples[key] = Example(key, text, target="", task=task, source=source | {"row": str(number)} | fields)
    cases = [(repeated, f"example {some(repeated)} occurs more than once", "the first is kept")]
    findings.add_each(place, cases)
    if empty and len(findings) == faults:
        findings.add(place, "it is empty", "not read")


def _parse(line: dict[str, Any]) -> tuple[int, str, dict[str, Any]] | None:
    """Id, text and other fields of an example; None if it is none, or its text cannot be stored."""
    key, text = line.get("id"), line.get("input")
    try:
        storable = is_count(key) and isinstance(text, str) and bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        storable = False
    return (key, text, {name: line[name] for name in line if name not in ("id", "input")}) if storable else None
