"""What a Trainer really trains on: token ids and labels of single rows, from its own dataset and collator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch

from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.models.token_rule import Cut

IGNORED = -100
# As many examples show how a trainer makes tokens; more would only take longer.
MOST = 500
_STREAMED = 64


class Labelled(NamedTuple):
    """Token ids of a row, and its labels: the ids that are scored, -100 elsewhere."""

    ids: list[int]
    labels: list[int]

    @property
    def scored(self) -> list[int]:
        """Positions of the scored tokens. Nothing is predicted for the first."""
        return [place for place, label in enumerate(self.labels) if place and label != IGNORED]

    @property
    def until_last_scored(self) -> list[int]:
        """Ids up to the last one that is scored: what follows changes no loss."""
        scored = self.scored
        return self.ids[: scored[-1] + 1] if scored else []

    def check(self, where: str) -> Labelled:
        """The same, if the loss of its scored tokens can be measured.

        Raises:
            DataError: ids and labels do not go together.
        """
        if len(self.ids) != len(self.labels):
            raise DataError(f"{where}: it has {len(self.ids)} input_ids and {len(self.labels)} labels")
        odd = next((place for place in self.scored if self.labels[place] != self.ids[place]), None)
        if odd is not None:
            raise DataError(
                f"{where}: label {odd} is {self.labels[odd]}, where its input_ids have {self.ids[odd]}. Only labels "
                "that are the input ids themselves, or -100, can be recorded: they are shifted by the model"
            )
        return self


def read_batch(batch: Any, where: str) -> list[Labelled]:
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
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    mask = None if mask is None else torch.as_tensor(mask)
    rows = []
    for row in range(len(ids)):
        kept = torch.ones_like(ids[row], dtype=torch.bool)
        if mask is not None and mask.shape == ids.shape:
            kept = mask[row] > 0
        starts = [0]
        if mask is None and positions is not None and torch.as_tensor(positions).shape == ids.shape:
            starts = torch.as_tensor(positions)[row].eq(0).nonzero().flatten().tolist() or [0]
        parts = zip(starts, [*starts[1:], ids.shape[1]], strict=True)
        rows += [
            Labelled(ids[row, begin:end][kept[begin:end]].tolist(), labels[row, begin:end][kept[begin:end]].tolist())
            for begin, end in parts
        ]
    return rows


class Trained(Protocol):
    """Shows ids and labels of rows, with the numbers of their examples."""

    def read(self) -> Iterator[tuple[int, Labelled]]:
        """Rows that can be seen before the first update."""
        ...


class BatchRows:
    """The rows of the first batch, where the dataset cannot be read before it.

    Args:
        batch: as the model will get it.
        numbers: of the examples of its rows.
    """

    def __init__(self, batch: Any, numbers: Sequence[int]) -> None:
        self.batch = batch
        self.numbers = list(numbers)

    def read(self) -> Iterator[tuple[int, Labelled]]:
        """All of them.

        Raises:
            DataError: the batch cannot be read.
        """
        where = "the first training batch"
        rows = read_batch(self.batch, where)
        if len(rows) != len(self.numbers):
            raise DataError(
                f"{where}: {len(rows)} sequences are made of {len(self.numbers)} rows, so whose loss is trained is not "
                "known. Set packing=False"
            )
        yield from ((number, tokens.check(where)) for number, tokens in zip(self.numbers, rows, strict=True))


class RowReader:
    """Collates single rows of a dataset as a Trainer does.

    Args:
        dataset: that the trainer's dataloader reads.
        collate: the dataloader's own collator.
        number: the number of a row's example; below 0 for rows that are passed over.
        hidden: a column that `collate` does not see, or None.
        name: of the dataset, for messages.
        most: rows to read, spread over the dataset.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[Any], Any],
        number: Callable[[Any], int],
        hidden: str | None = None,
        name: str = "training",
        most: int = MOST,
    ) -> None:
        self.dataset = dataset
        self.collate = collate
        self.number = number
        self.hidden = hidden
        self.name = name
        self.most = most

    @property
    def readable(self) -> bool:
        """Whether rows can be read without taking them from the training."""
        # A stream of torch can often be read once only.
        stream = isinstance(self.dataset, torch.utils.data.IterableDataset)
        return hasattr(self.dataset, "__getitem__") and (not stream or hasattr(self.dataset, "column_names"))

    def _rows(self) -> Iterator[tuple[int, Any]]:
        if isinstance(self.dataset, torch.utils.data.IterableDataset):
            yield from enumerate(islice(iter(self.dataset), min(self.most, _STREAMED)))
            return
        total, most = len(self.dataset), self.most
        chosen = range(total) if total <= most else sorted({number * total // most for number in range(most)})
        yield from ((number, self.dataset[number]) for number in chosen)

    def read(self) -> Iterator[tuple[int, Labelled]]:
        """Ids and labels of rows, each with the number of its example.

        Raises:
            DataError: a row has no example, or what the collator makes of it cannot be read.
        """
        for place, row in self._rows():
            where = f"{self.name} row {place}"
            number = self.number(row)
            if number < 0:
                continue
            given = {name: value for name, value in row.items() if name != self.hidden}
            try:
                found = read_batch(self.collate([given]), where)
            except GPTDynamicsError:
                raise
            except Exception as error:
                raise DataError(
                    f"{where}: the data collator makes no batch of this row alone ({type(error).__name__}: {error}), "
                    "so which tokens it is trained on is not known. Use a collator that does"
                ) from error
            if len(found) != 1:
                raise DataError(
                    f"{where}: {len(found)} sequences are packed into it, so whose loss is trained is not known. "
                    "Set packing=False"
                )
            yield number, found[0].check(where)


def given_tokens(rows: Sequence[Any], part: str) -> dict[int, Labelled]:
    """Ids and labels that rows carry themselves, by their numbers; empty if none does.

    Args:
        rows: as the user gave them: `input_ids` with `labels`, `completion_mask` or `assistant_masks`.
        part: `pool` or `test`, for messages.

    Raises:
        DataError: only some rows carry them, or they do not go together.
    """
    found: dict[int, Labelled] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or row.get("input_ids") is None:
            continue
        where = f"{part} example {number}"
        ids, labels = _plain(row["input_ids"]), row.get("labels")
        masks = [_plain(row[name]) for name in ("completion_mask", "assistant_masks") if row.get(name) is not None]
        if labels is None and not masks:
            raise DataError(
                f"{where}: it has input_ids without labels, so which of them are scored is not known. Give labels "
                "(-100 where no loss is taken), completion_mask or assistant_masks"
            )
        if labels is None:
            labels = [token if all(bits) else IGNORED for token, *bits in zip(ids, *masks, strict=False)]
        found[number] = Labelled(ids, _plain(labels)).check(where)
    if found and len(found) < len(rows):
        missing = next(number for number in range(len(rows)) if number not in found)
        raise DataError(f"{part} example {missing}: it has no input_ids, and others have. Give all of them, or none")
    return found


def _plain(values: Iterable[Any]) -> list[int]:
    return [int(value) for value in values]


class SFTPreparation:
    """TRL's own preparation of rows, as `SFTTrainer.evaluate` applies it to a dataset that it is given.

    There is no public name for it alone: what it makes is believed only where it makes of pool rows what was trained.

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

    def prepare(self, rows: Sequence[Any]) -> dict[int, Labelled]:
        """Ids and labels of rows, by their numbers; those that it drops are missing.

        Args:
            rows: in the form of the training rows.

        Raises:
            SettingsError: it cannot be done; the message has the reason.
        """
        from datasets import Dataset

        number = "gptdynamics_row"
        columns = [
            {name: value for name, value in row.items() if name not in ("input_ids", "labels")} | {number: place}
            for place, row in enumerate(rows)
        ]
        trainer = self.trainer
        try:
            made = trainer._prepare_dataset(
                Dataset.from_list(columns),
                trainer.processing_class,
                trainer.args,
                False,
                getattr(trainer, "_formatting_func", None),
                "recorded",
            )
            return {row[number]: Labelled(list(row["input_ids"]), list(row["labels"])) for row in made}
        except Exception as error:
            raise SettingsError(
                f"{type(trainer).__name__} does not prepare these rows ({type(error).__name__}: {error})"
            ) from error
