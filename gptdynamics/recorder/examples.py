"""The pool and the test set of recorded runs, from examples or rows in the user's form."""

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
        numbers: of the pool examples, by the ids of the user's rows.
        test_numbers: of the test examples, by the ids of the user's rows.
    """

    pool: list[Example]
    test: list[Example]
    numbers: dict[Hashable, int]
    test_numbers: dict[Hashable, int]

    def number(self, row_id: Any, where: str) -> int:
        """The number of the pool example with an id of the user's rows; `where` it occurs is for the message.

        Raises:
            DataError: no pool example has this id.
        """
        key = plain_id(row_id)
        if not isinstance(key, Hashable) or key not in self.numbers:
            ids = list(self.numbers)
            excerpt = ", ".join(map(repr, ids[:3])) + (f", ... {ids[-1]!r}" if len(ids) > 3 else "")
            raise DataError(f"{where}: {key!r} is not the id of a pool example (they are {excerpt})")
        return self.numbers[key]


def plain_id(row_id: Any) -> Any:
    """An id as a plain value: scalars of torch and numpy become Python's, which can be dictionary keys."""
    return row_id.item() if hasattr(row_id, "item") and callable(row_id.item) else row_id


def recorded_examples(
    pool: Rows, test: Rows, task: Task | Mixture, id_column: str, chat: Chat = plain_chat
) -> RecordedExamples:
    """Check and number a user's examples.

    Args:
        pool, test: `Example`s, or rows such as those of a `datasets.Dataset`: texts (see `row_texts`) and, if they have
            them, an id, `references`, `source` and, in a mixture, `task`.
        task: of the config.
        id_column: the column of rows that has their ids. The id of a row without one is its number.
        chat: renders the messages of conversational rows as a text.

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
        example_task = parts[number % len(parts)]
        row_id, example = _example(row, number, where, part, example_task, id_column, chat)
        if row_id in numbers:
            raise DataError(f"{where}: example {numbers[row_id]} has the same id, {row_id!r}")
        numbers[row_id] = number
        examples.append(_checked(example, example_task, where))
    if not examples or len(examples) % len(parts):
        raise DataError(
            f"{part}: {len(examples)} examples; give at least one, and the same number for each task of {task.name}"
        )
    return examples, numbers


def _example(
    row: Example | Mapping[str, Any], number: int, where: str, part: str, task: Task, id_column: str, chat: Chat
) -> tuple[Hashable, Example]:
    if isinstance(row, Example):
        return row.id, replace(row, id=number, task=row.task or task.name)
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a {type(row).__name__} instead of an Example or a row with prompt and target")
    row_id = plain_id(row.get(id_column))
    if not isinstance(row_id, Hashable):
        raise DataError(f"{where}: {id_column} {row_id!r} cannot be an id")
    texts = row_texts(row, where, chat)
    if texts.whole and not task.generates:
        raise DataError(f"{where}: it has a text without a separate label; rows of label tasks need prompt and target")
    references = row.get("references") or ()
    return number if row_id is None else row_id, Example(
        id=number,
        prompt=texts.prompt,
        target=texts.target,
        references=(references,) if isinstance(references, str) else tuple(references) or _text_references(texts),
        task=str(row.get("task") or task.name),
        source=_source(row.get("source"), row_id, number, part, task.name),
    )


def _text_references(texts: RowTexts) -> tuple[str, ...]:
    return (texts.target.strip(),) if texts.whole and texts.target.strip() else ()


def _source(source_given: Any, row_id: Any, number: int, part: str, task: str) -> dict[str, str]:
    """The source of a row, by which it can be found if a release leaves its texts out."""
    if isinstance(source_given, Mapping):
        return {str(name): str(value) for name, value in source_given.items()}
    source = {"dataset": str(source_given or task), "split": part, "row": str(number)}
    return source if row_id is None or row_id == number else source | {"id": str(row_id)}


def _checked(example: Example, task: Task, where: str) -> Example:
    if example.task != task.name:
        raise DataError(f"{where}: its task is {example.task!r}, but the config has {task.name!r} there")
    if example.withheld or not example.target.strip():
        other = "give the whole text in a column 'text' instead of prompt and target, or " if example.withheld else ""
        raise DataError(f"{where}: its {'prompt' if example.withheld else 'target'} is empty; {other}leave the row out")
    if task.labels and example.target not in task.labels:
        labels = ", ".join(map(repr, task.labels))
        raise DataError(f"{where}: its target {example.target!r} is not one of the labels of {task.name}, {labels}")
    references: Sequence[str] = example.references if task.generates else ()
    if not all(isinstance(text, str) and text.strip() for text in references):
        raise DataError(f"{where}: every reference must be a text that is not empty")
    if task.generates and not references:
        references = (example.target.strip(),)
    return replace(example, references=tuple(references))
