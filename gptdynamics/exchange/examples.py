"""Examples in the authors' layout: JSON lines `{"id", "input"}` in `sft_tasks/` and `it_tasks/`."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from gptdynamics.dataset.checks.findings import some
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.jsonlines import is_count, lines, read_lines
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

    @property
    def whole(self) -> bool:
        """Whether there are some of both."""
        return bool(self.pool and self.test)


def read_examples(root: Path, findings: Findings) -> dict[str, TaskExamples]:
    """The examples of every task of a release. Its files do not say where a prompt ends: the target is left empty.

    Args:
        root: the release.
        findings: gathers what is wrong with files and rows.
    """
    found: dict[tuple[str, str], dict[int, Example]] = defaultdict(dict)
    for path in sorted(path for name in FOLDERS for path in (root / name).rglob("*") if path.is_file()):
        place = path.relative_to(root).as_posix()
        named = example_file(path.name)
        if named is None:
            if not path.name.startswith("."):
                findings.add(place, "it is not named <task>_..._train.json or <task>_..._eval.json", "not read")
            continue
        try:
            _read_file(path, place, named[0], found[named], findings)
        except DataError as error:
            findings.add(place, str(error), "not read")
    tasks = {task for task, _ in found}
    return {
        task: TaskExamples(*([rows[at] for at in sorted(rows)] for rows in (found[task, "pool"], found[task, "test"])))
        for task in sorted(tasks)
    }


def _read_file(path: Path, place: str, task: str, found: dict[int, Example], findings: Findings) -> None:
    odd: list[int] = []
    twice: list[int] = []
    rows = 0
    for number, line in read_lines(path, place, findings):
        rows += 1
        key, text = line.get("id"), line.get("input")
        if not is_count(key) or not isinstance(text, str) or not _is_text(text):
            odd.append(number + 1)
            continue
        if key in found:
            twice.append(key)
            continue
        source = {
            "dataset": "the paper authors' release",
            "split": "train" if example_file(path.name) == (task, "pool") else "eval",
            "file": place,
            "row": str(number),
            "licence": UNKNOWN,
        }
        extra = {name: value for name, value in line.items() if name not in ("id", "input")}
        if extra:
            source["fields"] = json.dumps(extra, sort_keys=True)
        found[key] = Example(id=key, prompt=text, target="", task=task, source=source)
    if odd:
        findings.add(place, f"{lines(odd)} no example with an id and an input", "left out")
    if twice:
        findings.add(place, f"example {some(twice)} occurs more than once", "the first is kept")
    if not rows:
        findings.add(place, "it is empty", "not read")


def _is_text(text: str) -> bool:
    """Whether it can be stored: not empty, and no half of a surrogate pair."""
    try:
        return bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
