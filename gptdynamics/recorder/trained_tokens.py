"""Token ids and labels of single rows as a Trainer trains on them, from its own dataset and collator."""

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
# This many examples are enough to infer how a trainer makes tokens.
MOST_ROWS = 500
_MOST_STREAMED = 64


@dataclass(frozen=True)
class LabelledRow(TokenizedExample):
    """Token ids of a row with its labels: the ids of tokens with a loss, -100 elsewhere."""

    labels: list[int] = field(default_factory=list)

    @classmethod
    def from_labels(cls, ids: list[int], labels: list[int], where: str) -> LabelledRow:
        """A row whose loss can be measured.

        Args:
            ids, labels: of the row.
            where: its origin, for messages.

        Raises:
            DataError: ids and labels do not match.
        """
        if len(ids) != len(labels):
            raise DataError(f"{where}: it has {len(ids)} input_ids and {len(labels)} labels")
        # The first token is not predicted.
        scored = [index for index, label in enumerate(labels) if index and label != IGNORED]
        wrong = next((index for index in scored if labels[index] != ids[index]), None)
        if wrong is not None:
            raise DataError(
                f"{where}: label {wrong} is {labels[wrong]}, but its input id is {ids[wrong]}. A label must be the "
                "input id at the same position, or -100: the model shifts them"
            )
        # The target is the last stretch of tokens with a loss.
        last = scored[-1] if scored else 1
        start = next((index for index in reversed(range(1, last)) if labels[index] == IGNORED), 0) + 1
        return cls(ids, scored, start, labels=labels)


# Returns rows, each with the number of its example. It can be called before the first update.
RowSource = Callable[[], Iterable[tuple[int, LabelledRow]]]


def read_batch(batch: Any, where: str) -> list[LabelledRow]:
    """The rows of a batch without padding, also those of padding-free batches, which join rows.

    Args:
        batch: from a collator.
        where: its origin, for messages.

    Raises:
        DataError: it does not have ids and labels of matching shapes.
    """
    missing = [name for name in ("input_ids", "labels") if batch.get(name) is None]
    if missing:
        raise DataError(
            f"{where}: its batches have no {missing[0]!r} (they have {', '.join(map(str, batch))}), so the trained "
            "tokens are unknown. Use a data collator that makes input_ids and labels"
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
            lists = [values[row, start:end][chosen].tolist() for values in (ids, labels)]
            rows.append(LabelledRow.from_labels(lists[0], lists[1], where))
    return rows


def rows_of_first_batch(batch: Any, numbers: Sequence[int]) -> Iterator[tuple[int, LabelledRow]]:
    """The rows of the first batch, for datasets that cannot be read before training.

    Args:
        batch: the model's input.
        numbers: of the examples of its rows.

    Raises:
        DataError: the batch cannot be read.
    """
    where = "the first training batch"
    rows = read_batch(batch, where)
    if len(rows) != len(numbers):
        raise DataError(
            f"{where}: its {len(numbers)} rows became {len(rows)} sequences, so the examples of their losses are "
            "unknown. Set packing=False"
        )
    yield from zip(numbers, rows, strict=True)


def can_be_read(dataset: Any) -> bool:
    """Whether rows can be read without consuming them: an iterable dataset of torch can often be read only once."""
    stream = isinstance(dataset, torch.utils.data.IterableDataset)
    return hasattr(dataset, "__getitem__") and (not stream or hasattr(dataset, "column_names"))


def rows_of_dataset(
    dataset: Any,
    collate: Callable[[Any], Any],
    number: Callable[[Any], int],
    hidden: str | None = None,
    name: str = "training",
    limit: int = MOST_ROWS,
) -> Iterator[tuple[int, LabelledRow]]:
    """Rows of a dataset, collated one by one as a Trainer does, each with the number of its example.

    Args:
        dataset: of the trainer's dataloader.
        collate: the dataloader's own collator.
        number: returns the number of a row's example; below 0 for rows to leave out.
        hidden: a column that is removed before `collate` is called, or None.
        name: of the dataset, for messages.
        limit: the most rows to read, spread over the dataset.

    Raises:
        DataError: a row has no example, or its collated batch cannot be read.
    """
    for index, row in _sampled(dataset, limit):
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
                f"{where}: the data collator cannot make a batch of this row alone ({type(error).__name__}: {error}), "
                "so its trained tokens are unknown. Use a collator that can"
            ) from error
        if len(rows) != 1:
            raise DataError(
                f"{where}: {len(rows)} sequences are packed into it, so the examples of their losses are unknown. "
                "Set packing=False"
            )
        yield example, rows[0]


def _sampled(dataset: Any, limit: int) -> Iterator[tuple[int, Any]]:
    if isinstance(dataset, torch.utils.data.IterableDataset):
        yield from enumerate(islice(iter(dataset), min(limit, _MOST_STREAMED)))
        return
    total = len(dataset)
    chosen = range(total) if total <= limit else sorted({index * total // limit for index in range(limit)})
    yield from ((index, dataset[index]) for index in chosen)


def given_tokens(rows: Sequence[Any], part: str) -> dict[int, LabelledRow]:
    """Ids and labels that rows have themselves, by their numbers; empty if no row has any.

    Args:
        rows: as the user gave them: `input_ids` with `labels`, `completion_mask` or `assistant_masks`.
        part: `pool` or `test`, for messages.

    Raises:
        DataError: only some rows have them, or they do not match.
    """
    tokens_by_number: dict[int, LabelledRow] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or row.get("input_ids") is None:
            continue
        where = f"{part} example {number}"
        ids, labels = _integers(row["input_ids"]), row.get("labels")
        masks = [_integers(row[name]) for name in ("completion_mask", "assistant_masks") if row.get(name) is not None]
        if labels is None and not masks:
            raise DataError(
                f"{where}: it has input_ids without labels, so it is unknown which tokens have a loss. Give labels "
                "(-100 where there is no loss), completion_mask or assistant_masks"
            )
        if labels is None:
            labels = [token if all(bits) else IGNORED for token, *bits in zip(ids, *masks, strict=False)]
        tokens_by_number[number] = LabelledRow.from_labels(ids, _integers(labels), where)
    if tokens_by_number and len(tokens_by_number) < len(rows):
        missing = next(number for number in range(len(rows)) if number not in tokens_by_number)
        raise DataError(f"{part} example {missing}: it has no input_ids, but other examples have. Give all or none")
    return tokens_by_number


def _integers(values: Iterable[Any]) -> list[int]:
    return [int(value) for value in values]


class SFTPreparation:
    """TRL's own preparation of rows, as `SFTTrainer.evaluate` applies it to a dataset.

    TRL has no public function for it. Its result is used only if it turns pool rows into the trained tokens.

    Args:
        trainer: any trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    @property
    def available(self) -> bool:
        """Whether the trainer prepares datasets itself."""
        return hasattr(self.trainer, "_prepare_dataset") and not getattr(self.trainer, "_skip_prepare_dataset", False)

    @property
    def cut(self) -> tuple[Cut, int] | None:
        """The end at which it cuts longer sequences, and the longest length; None if it does not cut."""
        longest = getattr(self.trainer.args, "max_length", None)
        modes: dict[str, Cut] = {"keep_start": "right", "keep_end": "left"}
        mode = modes.get(getattr(self.trainer.args, "truncation_mode", ""))
        return (mode, longest) if self.available and longest is not None and mode is not None else None

    def prepare(self, rows: Sequence[Any]) -> dict[int, LabelledRow]:
        """Ids and labels of rows, by their numbers, without the rows that it drops.

        Args:
            rows: in the form of the training rows.

        Raises:
            SettingsError: the preparation fails; the message has the reason.
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
