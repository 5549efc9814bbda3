"""The rows that examples are made of, and how to load their texts where a release leaves them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.tasks.loading import load_examples
from gptdynamics.tasks.registry import get_task

# Parts of a source that do not tell rows apart: the same rows are in many commits of a dataset.
_NOT_IDENTIFYING = ("licence", "revision")


@dataclass(frozen=True)
class ExampleSource:
    """The row that an example is made of; without its texts, but with what is needed to recognise them.

    Attributes:
        id: of the example.
        source: see `Example.source`.
        digest: of prompt and target; None: the texts were withheld.
        label: the target of a label task's example whose texts were withheld; else empty.
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
        loaded = cls(**values)
        texts = [*loaded.source.keys(), *loaded.source.values(), loaded.label, loaded.digest or ""]
        if type(loaded.id) is not int or not all(isinstance(text, str) for text in texts):
            raise TypeError("an example's id must be a whole number, and its source must have texts only")
        return loaded

    def check(self, example: Example, task: str) -> None:
        """Raise DataError if an example that was loaded is not made of this row."""
        if self.digest is not None:
            matches = example.digest == self.digest
        else:
            matches = _row(example.source) == _row(self.source) and self.label in ("", example.target)
        if not matches:
            raise DataError(
                f"{task} example {self.id} was made of {_words(self.source)}. The row loaded for it, "
                f"{_words(example.source)}, differs from it. Give the folder of the runs' rows (data, --data DIR)"
            )


def load_sources(
    sources: Sequence[ExampleSource], task: str, part: str, data: Path | None = None
) -> dict[int, Example]:
    """Load the examples of some rows, by id.

    Args:
        sources: of the examples.
        task: name of the task or the mixture.
        part: `pool` or `test`.
        data: folder with local rows; None: generated rows or the Hub.

    Raises:
        SettingsError: the task is not known here.
        DataError: the rows cannot be loaded, or are not the rows of these sources.
    """
    if not sources:
        return {}
    wanted_task = get_task(task)
    parts = wanted_task.parts if part == "pool" else wanted_task.test_parts
    rows = max(source.id for source in sources) // len(parts) + 1
    loaded = {example.id: example for example in load_examples(wanted_task, part, rows, data)}
    for source in sources:
        source.check(loaded[source.id], task)
    return {source.id: loaded[source.id] for source in sources}


def restore_texts(examples: Sequence[Example], task: str, part: str, data: Path | None = None) -> list[Example]:
    """Load the texts of examples whose texts were withheld; examples with texts are returned unchanged.

    Args:
        examples: of the pool or the test set of a release.
        task: name of the task or the mixture.
        part: `pool` or `test`.
        data: folder with the local rows that the runs were made on; None: generated rows or the Hub.

    Raises:
        SettingsError, DataError: see `load_sources`.
    """
    withheld = [ExampleSource.of(example) for example in examples if example.withheld]
    loaded = load_sources(withheld, task, part, data)
    return [loaded[example.id] if example.withheld else example for example in examples]


def _row(source: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in source.items() if name not in _NOT_IDENTIFYING}


def _words(source: Mapping[str, str]) -> str:
    """A source in a sentence: `row 3 of sst2 train (source_index 17)`."""
    place_names = ("dataset", "config", "split", "row")
    details = ", ".join(f"{name} {value}" for name, value in _row(source).items() if name not in place_names)
    place = " ".join(source[name] for name in place_names[:3] if source.get(name))
    return f"row {source.get('row', '?')} of {place or 'an unknown dataset'}" + (f" ({details})" if details else "")
