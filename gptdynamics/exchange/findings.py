"""Problems that an import or an export found, and what it did about them."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that could not be converted unchanged.

    Attributes:
        place: file or folder, relative to the release (or config and run of a dataset folder).
        what: the problem.
        done: what was done about it.
    """

    place: str
    what: str
    done: str

    def __str__(self) -> str:
        text = f"{self.place}: {self.what}; {self.done}"
        # Names of files may hold line breaks, or control codes of a terminal.
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


class Findings(list[Finding]):
    """All findings, in the order of discovery."""

    def add(self, place: str, what: str, done: str) -> None:
        """Add a finding."""
        self.append(Finding(place, what, done))

    def add_each(self, place: str, *cases: tuple[Sized, str, str]) -> None:
        """Add a finding for each case (occurrences, problem, what was done) that has occurrences."""
        self.extend(Finding(place, what, done) for occurrences, what, done in cases if occurrences)
