"""The pool and the test set of recorded runs, from whatever a user has them in."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.recorder.row_texts import Chat, RowTexts, plain_chat, row_texts
from gptdynamics.tasks import Mixture, Task

Rows = Iterable[Example | Mapping[str, Any]]


@dataclass(frozen=True)
class RecordedExamples:
    """Pool and test set, numbered from 0.

    Attributes:
        pool, test: the examples, in the order of their numbers.
        numbers: of the pool examples, by the ids that the user's own rows have.
        test_numbers: of the test examples, likewise.
    """

    pool: list[Example]
    test: list[Example]
    numbers: dict[Hashable, int]
    test_numbers: dict[Hashable, int]

    def number(self, own_id: Any, where: str) -> int:
        """The number of the pool example with an id of the user's rows; `where` the id stands is for the message.

        Raises:
            DataError: no pool example has this id.
        """
        key = plain_id(own_id)
        if not isinstance(key, Hashable) or key not in self.numbers:
            ids = list(self.numbers)
            excerpt = ", ".join(map(repr, ids[:3])) + (f", ... {ids[-1]!r}" if len(ids) > 3 else "")
            raise DataError(f"{where}: {key!r} is not the id of a pool example (they are {excerpt})")
        return self.numbers[key]


def plain_id(own_id: Any) -> Any:
    """An id as a plain value: scalars of torch and numpy become those of Python, which can be dictionary keys."""
    return own_id.item() if hasattr(own_id, "item") and callable(own_id.item) else own_id


def recorded_examples(
    pool: Rows, test: Rows, task: Task | Mixture, id_column: str, chat: Chat = plain_chat
) -> RecordedExamples:
    """Check and number a user's examples.

    Args:
        pool, test: `Example`s, or rows such as those of a `datasets.Dataset`: texts (see `row_texts`) and, if they have
            them, an id, `references`, `source` and, in a mixture, `task`.
        task: of the config.
        id_column: the column of rows that has their ids. The id of a row without one is its number.
        chat: makes a text of the messages of conversational rows.

    Raises:
        DataError: a row lacks a text, has a label that the task does not have, or an id that another row has.
    """
    pool_examples, numbers = _numbered(pool, task, "pool", id_column, chat)
    test_examples, test_numbers = _numbered(test, task, "test", id_column, chat)
    return RecordedExamples(pool_examples, test_examples, numbers, test_numbers)


def _numbered(
    rows: Rows, task: Task | Mixture, part: str, id_column: str, chat: Chat
) -> tuple[list[Example], dict[Hashable, int]]:
    parts = task.parts if part == "pool" else task.test_parts
    examples: list[Example] = []
    numbers: dict[Hashable, int] = {}
    for number, row in enumerate(rows):
        where = f"{part} example {number}"
        kind = parts[number % len(parts)]
        own_id, example = _example(row, number, where, part, kind, id_column, chat)
        if own_id in numbers:
            raise DataError(f"{where}: example {numbers[own_id]} has the same id, {own_id!r}")
        numbers[own_id] = number
        examples.append(_checked(example, kind, where))
    if not examples or len(examples) % len(parts):
        raise DataError(f"{part}: {len(examples)} examples; there must be some, of each task of {task.name} as many")
    return examples, numbers


def _example(
    row: Example | Mapping[str, Any], number: int, where: str, part: str, task: Task, id_column: str, chat: Chat
) -> tuple[Hashable, Example]:
    if isinstance(row, Example):
        return row.id, replace(row, id=number, task=row.task or task.name)
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a {type(row).__name__}, where an Example or a row with prompt and target is wanted")
    own_id = plain_id(row.get(id_column))
    if not isinstance(own_id, Hashable):
        raise DataError(f"{where}: {id_column} {own_id!r} cannot be an id")
    texts = row_texts(row, where, chat)
    if texts.whole and not task.generates:
        raise DataError(f"{where}: it has a text without a label of its own; rows need prompt and target")
    references = row.get("references") or ()
    return number if own_id is None else own_id, Example(
        id=number,
        prompt=texts.prompt,
        target=texts.target,
        references=(references,) if isinstance(references, str) else tuple(references) or _own(texts),
        task=str(row.get("task") or task.name),
        source=_source(row.get("source"), own_id, number, part, task.name),
    )


def _own(texts: RowTexts) -> tuple[str, ...]:
    return (texts.target.strip(),) if texts.whole and texts.target.strip() else ()


def _source(given: Any, own_id: Any, number: int, part: str, task: str) -> dict[str, str]:
    """Which row it is; a release may leave its texts out."""
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    source = {"dataset": str(given or task), "split": part, "row": str(number)}
    return source if own_id is None or own_id == number else source | {"id": str(own_id)}


def _checked(example: Example, task: Task, where: str) -> Example:
    if example.task != task.name:
        raise DataError(f"{where}: it is of task {example.task!r}, where the config has {task.name!r}")
    if example.withheld or not example.target.strip():
        raise DataError(f"{where}: its {'prompt' if example.withheld else 'target'} is empty")
    if task.labels and example.target not in task.labels:
        said = ", ".join(map(repr, task.labels))
        raise DataError(f"{where}: its target {example.target!r} is none of the labels of {task.name}, {said}")
    references: Sequence[str] = example.references if task.generates else ()
    if not all(isinstance(text, str) and text.strip() for text in references):
        raise DataError(f"{where}: a reference is empty or no text")
    if task.generates and not references:
        references = (example.target.strip(),)
    return replace(example, references=tuple(references))
