"""Faults of a dataset folder, and what gathers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

AGAIN = "Move it out of the folder and run the same collect command again, or fetch it again"
# What is not understood may be somebody's work: never advise to delete it.
NOT_OURS = "If it is yours, keep it in another folder; if it is of this dataset, restore its name"


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong with a dataset folder.

    Attributes:
        file: the file or folder, relative to the dataset folder.
        where: column, row, test example, step or field in it; empty for the whole file.
        what: is wrong.
        remedy: what to do about it.
    """

    file: str
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {f'{self.where}: ' if self.where else ''}{self.what}. {self.remedy}"


@dataclass
class Findings:
    """What was found so far.

    Attributes:
        root: the dataset folder.
        faults: in the order they were found.
        rows: that were checked.
    """

    root: Path
    faults: list[Fault] = field(default_factory=list)
    rows: int = 0

    def add(self, path: Path, where: str, what: str, remedy: str = AGAIN) -> None:
        """Note a fault."""
        self.faults.append(Fault(path.relative_to(self.root).as_posix(), where, what, remedy))


def some(items: Iterable[Any], most: int = 3, total: int | None = None) -> str:
    """The first few of many: `1, 2, 3 and 4 more`; `total` says how many, if `items` are only the first."""
    listed = list(items)
    left = (len(listed) if total is None else total) - min(len(listed), most)
    return ", ".join(str(item) for item in listed[:most]) + (f" and {left} more" if left else "")


def ids_problem(ids: list[int | None], wanted: range) -> str:
    """What is wrong with ids that should be `wanted`, in its order; empty if nothing is."""
    if len(ids) == len(wanted) and ids == list(wanted):
        return ""
    counts = Counter(at for at in ids if at is not None)
    problems = []
    if None in ids:
        problems.append(f"{ids.count(None)} null")
    if repeated := sorted(at for at, count in counts.items() if count > 1):
        problems.append(f"{some(repeated)} more than once")
    missing = len(wanted) - sum(at in wanted for at in counts)
    if missing:
        first = islice((at for at in wanted if at not in counts), 3)
        problems.append(f"{some(first, total=missing)} missing")
    if unknown := sorted(at for at in counts if at not in wanted):
        problems.append(f"{some(unknown)} unknown (there are 0 to {len(wanted) - 1})")
    return "; ".join(problems) or "not in ascending order"
