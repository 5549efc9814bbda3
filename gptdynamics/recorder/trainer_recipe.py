"""The recipe of a Trainer: repeats its training from the same weights on other batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.errors import SettingsError
from gptdynamics.recorder.batch_ids import torch_loader
from gptdynamics.recorder.examples import RecordedExamples

if TYPE_CHECKING:
    from transformers import Trainer


class _Batches(torch.utils.data.Sampler[list[int]]):
    """A batch sampler that yields fixed batches of row indices."""

    def __init__(self, batches: Sequence[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class TrainerRecipe:
    """`recipe(batches)` trains a trainer's model again, from its weights at creation, and records that.

    Args:
        trainer: a trainer that is ready to train, in one process.
        attach: attaches a new recorder to it, with the same pool, test set and settings.
        examples: pool and test set.
        id_column: of the ids in the training dataset.
        rows: all rows of the pool in the form of the training dataset; None: the training dataset.

    Raises:
        SettingsError: the training cannot be repeated.
    """

    def __init__(
        self,
        trainer: Trainer,
        attach: Callable[[Trainer], None],
        examples: RecordedExamples,
        id_column: str,
        rows: Any = None,
    ) -> None:
        if trainer.lr_scheduler is not None:
            raise SettingsError(
                "a trainer with a given learning-rate scheduler cannot train again: let it create its own, or give "
                "simulator.validate your own recipe"
            )
        self._trainer, self._attach, self._examples, self._id_column = trainer, attach, examples, id_column
        self._rows = trainer.train_dataset if rows is None else rows
        model: Any = trainer.model
        self._weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        self._optimizer = trainer.optimizer
        self._optimizer_state = None if trainer.optimizer is None else copy.deepcopy(trainer.optimizer.state_dict())

    def __call__(self, batches: Curriculum) -> None:
        """Train on batches of pool indices; afterwards the trainer differs in its weights only.

        Raises:
            SettingsError: the training dataset lacks a row, or a batch has fewer rows than micro-batches.
        """
        trainer: Any = self._trainer
        micro_batches = self._micro_batches(batches)
        trainer.model.load_state_dict(self._weights)
        trainer.optimizer, trainer.lr_scheduler = self._optimizer, None
        if self._optimizer is not None and self._optimizer_state is not None:
            self._optimizer.load_state_dict(copy.deepcopy(self._optimizer_state))
        originals = trainer.args, trainer.train_dataset, trainer.get_train_dataloader
        load = trainer.get_train_dataloader

        def loader() -> Any:
            loader_inside = torch_loader(load())
            fixed_loader = torch.utils.data.DataLoader(
                loader_inside.dataset, batch_sampler=_Batches(micro_batches), collate_fn=loader_inside.collate_fn
            )
            return trainer.accelerator.prepare(fixed_loader)

        trainer.args = copy.copy(trainer.args)
        # Only the recorder may save or evaluate.
        overrides = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
        vars(trainer.args).update(overrides | {"max_steps": len(batches)})
        trainer.train_dataset, trainer.get_train_dataloader = self._rows, loader
        try:
            self._attach(trainer)
            trainer.train()
        finally:
            trainer.args, trainer.train_dataset, _ = originals
            vars(trainer).pop("get_train_dataloader", None)

    def _micro_batches(self, batches: Curriculum) -> list[list[int]]:
        """Indices of rows in the training dataset, for each forward and backward pass."""
        row_of_number: dict[int, int] = {}
        for row, row_id in enumerate(self._own_ids()):
            row_of_number.setdefault(self._examples.number(row_id, f"training row {row}"), row)
        missing = sorted({number for batch in batches for number in batch} - row_of_number.keys())
        if missing:
            raise SettingsError(
                f"the training dataset lacks {len(missing)} pool rows that changed runs train on, e.g. row "
                f"{missing[0]}: give attach(..., rows=...) all rows of the pool, as the training dataset has them"
            )
        passes = self._trainer.args.gradient_accumulation_steps
        micro_batches: list[list[int]] = []
        for number, batch in enumerate(batches, start=1):
            if len(batch) < passes:
                raise SettingsError(
                    f"update {number} has {len(batch)} rows for {passes} micro-batches: "
                    "set gradient_accumulation_steps lower"
                )
            ends = [round(part * len(batch) / passes) for part in range(passes + 1)]
            micro_batches += [[row_of_number[pool_number] for pool_number in batch[a:b]] for a, b in pairwise(ends)]
        return micro_batches

    def _own_ids(self) -> list[Any]:
        if hasattr(self._rows, "column_names"):
            return list(self._rows.with_format(None)[self._id_column])
        return [self._rows[row][self._id_column] for row in range(len(self._rows))]
