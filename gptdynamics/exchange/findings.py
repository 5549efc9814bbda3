"""What was not as it should be, and what was done about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


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
        # Names of files may hold line breaks, or what a terminal obeys.
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)

    def to_dict(self) -> dict[str, str]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass
class Findings:
    """All of them, in the order they were found."""

    found: list[Finding] = field(default_factory=list)

    def add(self, place: str, what: str, done: str) -> None:
        """Note one."""
        self.found.append(Finding(place, what, done))
