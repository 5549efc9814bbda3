"""Carries the numbers of a batch's pool examples from the rows of the dataset to the training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.recorder.examples import RecordedExamples

KEY = "gptdynamics_pool_numbers"

_WHAT_TO_PASS = (
    "Give each row of the training dataset the id of its pool example in a column {column!r} (id_column names another)"
)


class CarryNumbers:
    """A collator that adds to a batch the numbers of its rows' pool examples.

    The numbers stay right if batches are prefetched, made in other processes, skipped or dropped.

    Args:
        collate: the user's collator.
        examples: the pool.
        id_column: the column of rows that has their ids.
        added: whether the column was kept only for this; it is then removed before `collate` is called.
    """

    def __init__(self, collate: Callable[[Any], Any], examples: RecordedExamples, id_column: str, added: bool) -> None:
        self.collate = collate
        self.examples = examples
        self.id_column = id_column
        self.added = added
        self.problem = ""

    def __call__(self, rows: list[Any]) -> Any:
        """The batch with the numbers, `[rows]` int64; -1 where a row has no pool example."""
        numbers = []
        for row in rows:
            try:
                numbers.append(self.number(row))
            except DataError as error:
                self.problem = self.problem or str(error)
                numbers.append(-1)
        if self.added:
            rows = [{name: value for name, value in row.items() if name != self.id_column} for row in rows]
        batch = self.collate(rows)
        if not hasattr(batch, "pop"):
            raise SettingsError(
                f"the collator makes a {type(batch).__name__}, but only batches that are mappings can be recorded. "
                "Use a collator that makes a dict"
            )
        batch[KEY] = torch.tensor(numbers)
        return batch

    def number(self, row: Any) -> int:
        """The number of a row's pool example.

        Raises:
            DataError: it has none.
        """
        if not isinstance(row, Mapping) or self.id_column not in row:
            found_text = (
                f"it has {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"it is a {type(row).__name__}"
            )
            raise DataError(
                f"a row of the training dataset does not say which pool example it is: {found_text}. "
                + _WHAT_TO_PASS.format(column=self.id_column)
            )
        return self.examples.number(row[self.id_column], f"training row with {self.id_column}")


def check_column(dataset: Any, examples: RecordedExamples, id_column: str, packed: bool = False) -> None:
    """Check the ids of a training dataset before the first step, if it is one of `datasets`.

    Raises:
        DataError: it is packed, has no ids, or has an id that no pool example has.
    """
    columns = getattr(dataset, "column_names", None)
    if packed or (columns is not None and "seq_lengths" in columns):
        raise DataError(
            "packing puts several examples, or parts of them, into one row of the training dataset, so the examples "
            "of a batch are unknown. Set packing=False (padding_free=True with max_length=None saves padding)"
        )
    if columns is None or not hasattr(dataset, "__len__"):
        return
    if id_column not in columns:
        raise DataError(
            f"the training dataset does not say which pool examples are in a batch: it has the columns "
            f"{', '.join(columns)}. " + _WHAT_TO_PASS.format(column=id_column)
        )
    for row, row_id in enumerate(dataset.with_format(None)[id_column]):
        examples.number(row_id, f"training row {row}")


@contextmanager
def keeping_column(trainer: Any, id_column: str) -> Iterator[list[bool]]:
    """A context in which the trainer keeps the ids when it removes the columns that the model does not use.

    Yields:
        A list that becomes non-empty when the trainer would have removed the column.
    """
    removals: list[bool] = []
    remove = getattr(trainer, "_remove_unused_columns", None)

    def remove_others(dataset: Any, *arguments: Any, **keywords: Any) -> Any:
        reduced = remove(dataset, *arguments, **keywords)  # type: ignore[misc]
        if id_column in reduced.column_names or id_column not in dataset.column_names:
            return reduced
        removals.append(True)
        return dataset.select_columns([*reduced.column_names, id_column])

    if remove is not None:
        trainer._remove_unused_columns = remove_others
    try:
        yield removals
    finally:
        vars(trainer).pop("_remove_unused_columns", None)


def carry_numbers(loader: Any, examples: RecordedExamples, id_column: str, added: bool) -> tuple[Any, CarryNumbers]:
    """Wrap the collator of a dataloader (of torch, or of accelerate around one) in `CarryNumbers`.

    Returns:
        The dataset that it reads, and its new collator.

    Raises:
        SettingsError: it has no collator that could be wrapped.
    """
    inner = torch_loader(loader)
    if not isinstance(inner, torch.utils.data.DataLoader):
        raise SettingsError(
            f"the training batches come from a {type(inner).__name__}, not from a torch DataLoader, so their examples "
            "are unknown. Record with StepRecorder, which is given the ids"
        )
    carry = CarryNumbers(inner.collate_fn, examples, id_column, added)
    inner.collate_fn = carry
    return inner.dataset, carry


def torch_loader(loader: Any) -> Any:
    """The torch dataloader of one of accelerate's, which may wrap it or be one itself."""
    return getattr(loader, "base_dataloader", loader)
