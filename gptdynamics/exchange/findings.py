"""What an import or an export could not take over as it is, and what was done about it."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that could not be taken over as it is.

    Attributes:
        place: file or folder, relative to the release (or config and run of a dataset folder).
        what: is wrong with it, or does not fit.
        done: what became of it.
    """

    place: str
    what: str
    done: str

    def __str__(self) -> str:
        text = f"{self.place}: {self.what}; {self.done}"
        # Names of files may hold line breaks, or control codes of a terminal.
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


class Findings(list[Finding]):
    """All findings, in the order in which they were noted."""

    def add(self, place: str, what: str, done: str) -> None:
        """Note one."""
        self.append(Finding(place, what, done))

    def add_each(self, place: str, *cases: tuple[Sized, str, str]) -> None:
        """Note the faults of a place that occur: for each the occurrences (perhaps none), what it is, what was done."""
        self.extend(Finding(place, what, done) for occurrences, what, done in cases if occurrences)
