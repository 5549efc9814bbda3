"""Faults of a dataset folder, the list that collects them, and texts that rules share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

AGAIN = "Move it out of the folder and run the same collect command again, or fetch it again"
# A file of unknown purpose may be a user's work, so the remedy never advises to delete it.
NOT_OURS = "If it is yours, move it to another folder; if it belongs to this dataset, restore its name"
RESTORE = "Restore the manifest, or collect into another folder"

Subject = TypeVar("Subject")


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong with a dataset folder.

    Attributes:
        file: the file or folder, relative to the dataset folder.
        where: column, row, test example, step or field in it; empty for the whole file.
        what: the problem.
        remedy: what to do about it.
    """

    file: str
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {f'{self.where}: ' if self.where else ''}{self.what}. {self.remedy}"


class Problem(NamedTuple):
    """A fault of the file that a rule checks, as the rule yields it."""

    where: str
    what: str
    remedy: str = AGAIN


Problems = Iterator[Problem]


@dataclass
class Findings:
    """The faults of the dataset folder `root` in the order of discovery, and the number of checked rows."""

    root: Path
    faults: list[Fault] = field(default_factory=list)
    rows: int = 0

    def add(self, path: Path, where: str, what: str, remedy: str = AGAIN) -> None:
        """Add a fault."""
        self.faults.append(Fault(path.relative_to(self.root).as_posix(), where, what, remedy))

    def apply(self, rules: Iterable[Callable[[Subject], Problems]], path: Path, subject: Subject) -> None:
        """Add the faults that these rules find in a file."""
        for rule in rules:
            for problem in rule(subject):
                self.add(path, *problem)


def some(items: Iterable[Any], most: int = 3, total: int | None = None) -> str:
    """The first few items: `1, 2, 3 and 4 more`; `total` is their number if `items` has only the first."""
    listed = list(items)
    remaining = (len(listed) if total is None else total) - min(len(listed), most)
    return ", ".join(str(item) for item in listed[:most]) + (f" and {remaining} more" if remaining else "")


def first_row(wrong: np.ndarray) -> str:
    """The rows where `wrong` is true, as `row 3 and 2 rows more`."""
    suffix = f" and {wrong.sum() - 1} rows more" if wrong.sum() > 1 else ""
    return f"row {int(np.argmax(wrong))}{suffix}"


def ids_problem(ids: list[int | None], expected: range) -> str:
    """What is wrong with ids that should be `expected`, in its order; empty if nothing is."""
    if len(ids) == len(expected) and ids == list(expected):
        return ""
    counts = Counter(key for key in ids if key is not None)
    problems = []
    if None in ids:
        problems.append(f"{ids.count(None)} null")
    if repeated := sorted(key for key, count in counts.items() if count > 1):
        problems.append(f"{some(repeated)} more than once")
    missing = len(expected) - sum(key in expected for key in counts)
    if missing:
        first = islice((key for key in expected if key not in counts), 3)
        problems.append(f"{some(first, total=missing)} missing")
    if unknown := sorted(key for key in counts if key not in expected):
        problems.append(f"{some(unknown)} unknown (there are 0 to {len(expected) - 1})")
    return "; ".join(problems) or "not in ascending order"
