"""What a Trainer really trains on: token ids and labels of single rows, from its own dataset and collator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.models.token_rule import Cut
from gptdynamics.models.tokens import TokenizedExample

IGNORED = -100
# This many examples show how a trainer makes tokens; more would only take longer.
MOST_ROWS = 500
_MOST_STREAMED = 64


@dataclass(frozen=True)
class LabelledRow(TokenizedExample):
    """Token ids of a row with its labels: the ids that are scored, -100 elsewhere."""

    labels: list[int] = field(default_factory=list)

    @classmethod
    def from_labels(cls, ids: list[int], labels: list[int], where: str) -> LabelledRow:
        """A row whose loss can be measured.

        Args:
            ids, labels: of the row.
            where: it comes from, for messages.

        Raises:
            DataError: ids and labels do not go together.
        """
        if len(ids) != len(labels):
            raise DataError(f"{where}: it has {len(ids)} input_ids and {len(labels)} labels")
        # Nothing is predicted for the first token.
        scored = [index for index, label in enumerate(labels) if index and label != IGNORED]
        wrong = next((index for index in scored if labels[index] != ids[index]), None)
        if wrong is not None:
            raise DataError(
                f"{where}: label {wrong} is {labels[wrong]}, where its input_ids have {ids[wrong]}. Only labels "
                "that are the input ids themselves, or -100, can be recorded: they are shifted by the model"
            )
        # The text that would be generated is the last stretch of scored tokens.
        last = scored[-1] if scored else 1
        start = next((index for index in reversed(range(1, last)) if labels[index] == IGNORED), 0) + 1
        return cls(ids, scored, start, labels=labels)


# Gives rows, each with the number of its example. It can be called before the first update.
RowSource = Callable[[], Iterable[tuple[int, LabelledRow]]]


def read_batch(batch: Any, where: str) -> list[LabelledRow]:
    """The rows of a batch without padding, also where they follow each other in one row (padding-free).

    Args:
        batch: as a collator made it.
        where: it comes from, for messages.

    Raises:
        DataError: it has no ids and labels of the usual form.
    """
    missing = [name for name in ("input_ids", "labels") if batch.get(name) is None]
    if missing:
        raise DataError(
            f"{where}: its batches have no {missing[0]!r} (they have {', '.join(map(str, batch))}): which tokens are "
            "trained on is not known. Let the data collator make input_ids and labels"
        )
    ids, labels = (torch.as_tensor(batch[name]) for name in ("input_ids", "labels"))
    if ids.dim() == 1:
        ids, labels = ids[None], labels[None] if labels.dim() == 1 else labels
    if ids.dim() != 2 or ids.shape != labels.shape:
        raise DataError(f"{where}: input_ids of shape {tuple(ids.shape)}, labels of shape {tuple(labels.shape)}")
    mask, positions = (
        None if batch.get(name) is None else torch.as_tensor(batch[name]) for name in ("attention_mask", "position_ids")
    )
    is_token = mask > 0 if mask is not None and mask.shape == ids.shape else torch.ones_like(ids, dtype=torch.bool)
    rows = []
    for row in range(len(ids)):
        starts = [0]
        if mask is None and positions is not None and positions.shape == ids.shape:
            starts = positions[row].eq(0).nonzero().flatten().tolist() or [0]
        for start, end in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
            chosen = is_token[row, start:end]
            each = [values[row, start:end][chosen].tolist() for values in (ids, labels)]
            rows.append(LabelledRow.from_labels(each[0], each[1], where))
    return rows


def rows_of_first_batch(batch: Any, numbers: Sequence[int]) -> Iterator[tuple[int, LabelledRow]]:
    """The rows of the first batch, where the dataset cannot be read before it.

    Args:
        batch: as the model will get it.
        numbers: of the examples of its rows.

    Raises:
        DataError: the batch cannot be read.
    """
    where = "the first training batch"
    rows = read_batch(batch, where)
    if len(rows) != len(numbers):
        raise DataError(
            f"{where}: {len(rows)} sequences are made of {len(numbers)} rows, so whose loss is trained is not "
            "known. Set packing=False"
        )
    yield from zip(numbers, rows, strict=True)


def can_be_read(dataset: Any) -> bool:
    """Whether rows can be read without taking them from the training: a stream of torch can often be read only once."""
    stream = isinstance(dataset, torch.utils.data.IterableDataset)
    return hasattr(dataset, "__getitem__") and (not stream or hasattr(dataset, "column_names"))


def rows_of_dataset(
    dataset: Any,
    collate: Callable[[Any], Any],
    number: Callable[[Any], int],
    hidden: str | None = None,
    name: str = "training",
    most: int = MOST_ROWS,
) -> Iterator[tuple[int, LabelledRow]]:
    """Rows of a dataset, collated one by one as a Trainer does, each with the number of its example.

    Args:
        dataset: that the trainer's dataloader reads.
        collate: the dataloader's own collator.
        number: the number of a row's example; below 0 for rows to leave out.
        hidden: a column that `collate` does not see, or None.
        name: of the dataset, for messages.
        most: rows to read, spread over the dataset.

    Raises:
        DataError: a row has no example, or what the collator makes of it cannot be read.
    """
    for index, row in _sampled(dataset, most):
        where = f"{name} row {index}"
        example = number(row)
        if example < 0:
            continue
        visible = {column: value for column, value in row.items() if column != hidden}
        try:
            rows = read_batch(collate([visible]), where)
        except GPTDynamicsError:
            raise
        except Exception as error:
            raise DataError(
                f"{where}: the data collator makes no batch of this row alone ({type(error).__name__}: {error}), "
                "so which tokens it is trained on is not known. Use a collator that does"
            ) from error
        if len(rows) != 1:
            raise DataError(
                f"{where}: {len(rows)} sequences are packed into it, so whose loss is trained is not known. "
                "Set packing=False"
            )
        yield example, rows[0]


def _sampled(dataset: Any, most: int) -> Iterator[tuple[int, Any]]:
    if isinstance(dataset, torch.utils.data.IterableDataset):
        yield from enumerate(islice(iter(dataset), min(most, _MOST_STREAMED)))
        return
    total = len(dataset)
    chosen = range(total) if total <= most else sorted({index * total // most for index in range(most)})
    yield from ((index, dataset[index]) for index in chosen)


def given_tokens(rows: Sequence[Any], part: str) -> dict[int, LabelledRow]:
    """Ids and labels that rows carry themselves, by their numbers; empty if none does.

    Args:
        rows: as the user gave them: `input_ids` with `labels`, `completion_mask` or `assistant_masks`.
        part: `pool` or `test`, for messages.

    Raises:
        DataError: only some rows carry them, or they do not go together.
    """
    given: dict[int, LabelledRow] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or row.get("input_ids") is None:
            continue
        where = f"{part} example {number}"
        ids, labels = _integers(row["input_ids"]), row.get("labels")
        masks = [_integers(row[name]) for name in ("completion_mask", "assistant_masks") if row.get(name) is not None]
        if labels is None and not masks:
            raise DataError(
                f"{where}: it has input_ids without labels, so which of them are scored is not known. Give labels "
                "(-100 where no loss is taken), completion_mask or assistant_masks"
            )
        if labels is None:
            labels = [token if all(bits) else IGNORED for token, *bits in zip(ids, *masks, strict=False)]
        given[number] = LabelledRow.from_labels(ids, _integers(labels), where)
    if given and len(given) < len(rows):
        missing = next(number for number in range(len(rows)) if number not in given)
        raise DataError(f"{part} example {missing}: it has no input_ids, and others have. Give all of them, or none")
    return given


def _integers(values: Iterable[Any]) -> list[int]:
    return [int(value) for value in values]


class SFTPreparation:
    """TRL's own preparation of rows, as `SFTTrainer.evaluate` applies it to a dataset that it is given.

    TRL has no public name for it. Its result is trusted only if it makes of pool rows what is trained on.

    Args:
        trainer: any trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    @property
    def available(self) -> bool:
        """Whether the trainer is one that prepares datasets itself, and does."""
        return hasattr(self.trainer, "_prepare_dataset") and not getattr(self.trainer, "_skip_prepare_dataset", False)

    @property
    def cut(self) -> tuple[Cut, int] | None:
        """Which end of longer sequences it cuts, and their longest length; None if none."""
        longest = getattr(self.trainer.args, "max_length", None)
        modes: dict[str, Cut] = {"keep_start": "right", "keep_end": "left"}
        mode = modes.get(getattr(self.trainer.args, "truncation_mode", ""))
        return (mode, longest) if self.available and longest is not None and mode is not None else None

    def prepare(self, rows: Sequence[Any]) -> dict[int, LabelledRow]:
        """Ids and labels of rows, by their numbers; rows that it drops are missing.

        Args:
            rows: in the form of the training rows.

        Raises:
            SettingsError: it cannot be done; the message has the reason.
        """
        from datasets import Dataset

        column = "gptdynamics_row"
        numbered = [
            {name: value for name, value in row.items() if name not in ("input_ids", "labels")} | {column: number}
            for number, row in enumerate(rows)
        ]
        trainer = self.trainer
        try:
            prepared = trainer._prepare_dataset(
                Dataset.from_list(numbered),
                trainer.processing_class,
                trainer.args,
                False,
                getattr(trainer, "_formatting_func", None),
                "recorded",
            )
            return {
                row[column]: LabelledRow.from_labels(list(row["input_ids"]), list(row["labels"]), f"row {row[column]}")
                for row in prepared
            }
        except Exception as error:
            raise SettingsError(
                f"{type(trainer).__name__} does not prepare these rows ({type(error).__name__}: {error})"
            ) from error
