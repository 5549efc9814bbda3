"""Which rows examples are made of, and their texts again where a release leaves them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.tasks.loading import load_examples
from gptdynamics.tasks.registry import get_task

# What a source says beside which row it is. The same rows are in many commits of a dataset.
_BESIDE = ("licence", "revision")


@dataclass(frozen=True)
class ExampleSource:
    """Which row an example is made of; it has no texts, but says how they are known again.

    Attributes:
        id: of the example.
        source: as of `Example.source`.
        digest: of prompt and target; None: the texts were withheld.
        label: of an example whose texts were withheld, the target of a label task; else empty.
    """

    id: int
    source: Mapping[str, str]
    digest: str | None = None
    label: str = ""

    @classmethod
    def of(cls, example: Example) -> ExampleSource:
        """The source of an example."""
        if example.withheld:
            return cls(example.id, example.source, label=example.target)
        return cls(example.id, example.source, example.digest)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {"id": self.id, "source": dict(self.source), "digest": self.digest, "label": self.label}
        return {name: value for name, value in values.items() if value not in (None, "")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExampleSource:
        """From the result of `to_dict`; TypeError if a value is missing, unknown or of another type."""
        made = cls(**values)
        texts = [*made.source.keys(), *made.source.values(), made.label, made.digest or ""]
        if type(made.id) is not int or not all(isinstance(text, str) for text in texts):
            raise TypeError("an example's id is no whole number, or its source is not of texts")
        return made

    def check(self, example: Example, task: str) -> None:
        """Raise DataError if an example that was loaded is not made of this row."""
        if self.digest is not None:
            same = example.digest == self.digest
        else:
            same = _row(example.source) == _row(self.source) and self.label in ("", example.target)
        if not same:
            raise DataError(
                f"{task} example {self.id} was made of {_words(self.source)}; the row that was loaded for it, "
                f"{_words(example.source)}, is another one. Give the folder of the rows that the runs were made on "
                "(data, --data DIR)"
            )


def load_sources(
    sources: Sequence[ExampleSource], task: str, part: str, data: Path | None = None
) -> dict[int, Example]:
    """Load the examples of some rows, by id.

    Args:
        sources: of the examples.
        task: whose rows, or the mixture's.
        part: `pool` or `test`.
        data: folder with local rows; None: generated rows or the Hub.

    Raises:
        SettingsError: the task is not known here.
        DataError: the rows cannot be loaded, or are others than these.
    """
    if not sources:
        return {}
    asked = get_task(task)
    parts = asked.parts if part == "pool" else asked.test_parts
    rows = max(each.id for each in sources) // len(parts) + 1
    loaded = {example.id: example for example in load_examples(asked, part, rows, data)}
    for each in sources:
        each.check(loaded[each.id], task)
    return {each.id: loaded[each.id] for each in sources}


def restore_texts(examples: Sequence[Example], task: str, part: str, data: Path | None = None) -> list[Example]:
    """Examples as they were before their texts were withheld; those that have texts stay as they are.

    Args:
        examples: of the pool or the test set of a release.
        task: whose rows, or the mixture's.
        part: `pool` or `test`.
        data: folder with the local rows that the runs were made on; None: generated rows or the Hub.

    Raises:
        SettingsError, DataError: as of `load_sources`.
    """
    withheld = [ExampleSource.of(example) for example in examples if example.withheld]
    loaded = load_sources(withheld, task, part, data)
    return [loaded[example.id] if example.withheld else example for example in examples]


def _row(source: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in source.items() if name not in _BESIDE}


def _words(source: Mapping[str, str]) -> str:
    """A source in a sentence: `row 3 of sst2 train (source_index 17)`."""
    usual = ("dataset", "config", "split", "row")
    more = ", ".join(f"{name} {value}" for name, value in _row(source).items() if name not in usual)
    place = " ".join(source[name] for name in usual[:3] if source.get(name))
    return f"row {source.get('row', '?')} of {place or 'an unknown dataset'}" + (f" ({more})" if more else "")
