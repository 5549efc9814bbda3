"""Which pool examples are in a batch: their numbers travel with it from the rows to the training step."""

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
    """A collator that adds to the batch of another one the numbers of its rows' pool examples.

    Batches may be made ahead, in other processes, skipped or thrown away: the numbers are those of the very rows.

    Args:
        collate: the user's own.
        examples: what the ids mean.
        id_column: what rows call their ids.
        added: whether the rows have that column only for us; then `collate` does not see it.
    """

    def __init__(self, collate: Callable[[Any], Any], examples: RecordedExamples, id_column: str, added: bool) -> None:
        self.collate = collate
        self.examples = examples
        self.id_column = id_column
        self.added = added
        self.problem = ""

    def __call__(self, rows: list[Any]) -> Any:
        """The batch, and in it the numbers: `[rows]` int64, -1 where a row has no pool example.

        Such a row is no error here: training may long have begun.
        """
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
            raise SettingsError(f"the collator makes a {type(batch).__name__}; only batches by name can be recorded")
        batch[KEY] = torch.tensor(numbers)
        return batch

    def number(self, row: Any) -> int:
        """The number of a row's pool example.

        Raises:
            DataError: it has none.
        """
        if not isinstance(row, Mapping) or self.id_column not in row:
            has = f"it has {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"it is a {type(row).__name__}"
            raise DataError(
                f"a row of the training dataset does not say which pool example it is: {has}. "
                + _WHAT_TO_PASS.format(column=self.id_column)
            )
        return self.examples.number(row[self.id_column], f"training row with {self.id_column}")


def check_column(dataset: Any, examples: RecordedExamples, id_column: str, packed: bool = False) -> None:
    """Check the ids of a whole training dataset of `datasets`, before the first step. Of others nothing is asked.

    Args:
        dataset: of the trainer.
        examples: what the ids mean.
        id_column: what rows call their ids.
        packed: whether the trainer packs several examples into a row.

    Raises:
        DataError: it has no ids, or one that no pool example has.
    """
    columns = getattr(dataset, "column_names", None)
    if packed or (columns is not None and "seq_lengths" in columns):
        raise DataError(
            "packing puts several examples, and parts of them, into one row of the training dataset: which examples "
            "are in a batch cannot be known. Set packing=False (padding_free=True with max_length=None saves padding)"
        )
    if columns is None or not hasattr(dataset, "__len__"):
        return
    if id_column not in columns:
        raise DataError(
            f"the training dataset does not say which pool examples are in a batch: it has the columns "
            f"{', '.join(columns)}. " + _WHAT_TO_PASS.format(column=id_column)
        )
    for row, own_id in enumerate(dataset.with_format(None)[id_column]):
        examples.number(own_id, f"training row {row}")


@contextmanager
def keeping_column(trainer: Any, id_column: str) -> Iterator[list[bool]]:
    """Within, the trainer leaves the ids in its dataset where it removes the columns that the model does not take.

    Args:
        trainer: whose dataloader is made within.
        id_column: what rows call their ids.

    Yields:
        A list that is not empty once the column was kept.
    """
    kept: list[bool] = []
    remove = getattr(trainer, "_remove_unused_columns", None)

    def without_others(dataset: Any, *arguments: Any, **named: Any) -> Any:
        left = remove(dataset, *arguments, **named)  # type: ignore[misc]
        if id_column in left.column_names or id_column not in dataset.column_names:
            return left
        kept.append(True)
        return dataset.select_columns([*left.column_names, id_column])

    if remove is not None:
        trainer._remove_unused_columns = without_others
    try:
        yield kept
    finally:
        vars(trainer).pop("_remove_unused_columns", None)


def carry_numbers(loader: Any, examples: RecordedExamples, id_column: str, added: bool) -> tuple[Any, CarryNumbers]:
    """Let the batches of a dataloader have the numbers of their pool examples.

    Args:
        loader: of torch, or of accelerate around one.
        examples: what the ids mean.
        id_column: what rows call their ids.
        added: whether the rows have that column only for us.

    Returns:
        The dataset that it reads, and its collator now.

    Raises:
        SettingsError: it has no collator that could be wrapped.
    """
    inner = torch_loader(loader)
    if not isinstance(inner, torch.utils.data.DataLoader):
        raise SettingsError(
            f"the training batches come from a {type(inner).__name__}, not from a dataloader of torch: which examples "
            "are in them cannot be known. Record with StepRecorder, which is told"
        )
    carry = CarryNumbers(inner.collate_fn, examples, id_column, added)
    inner.collate_fn = carry
    return inner.dataset, carry


def torch_loader(loader: Any) -> Any:
    """The dataloader of torch within one of accelerate, which may be around it or be one itself."""
    return getattr(loader, "base_dataloader", loader)
