"""The recipe of a Trainer: its training, made again from the same weights on batches that are given."""

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
    """Places of rows, a batch at a time, as they were given."""

    def __init__(self, batches: Sequence[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class TrainerRecipe:
    """`recipe(batches)` trains a trainer's model again, from the weights it has now, and records that.

    Args:
        trainer: that is ready to train, in one process.
        attach: attaches a new recorder to it, of the same pool, test set and settings.
        examples: pool and test set.
        id_column: of the ids in the training dataset.
        rows: of the whole pool, as the training dataset has them; None: those of the training dataset.

    Raises:
        SettingsError: the training cannot be made again.
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
                "a trainer that is given a learning-rate scheduler cannot train again: let it make its own, or give "
                "simulator.validate a recipe of yours"
            )
        self._trainer, self._attach, self._examples, self._id_column = trainer, attach, examples, id_column
        self._rows = trainer.train_dataset if rows is None else rows
        model: Any = trainer.model
        self._weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        self._optimizer = trainer.optimizer
        self._optimizer_state = None if trainer.optimizer is None else copy.deepcopy(trainer.optimizer.state_dict())

    def __call__(self, batches: Curriculum) -> None:
        """Train on batches of places in the pool; the trainer is left as it was, with other weights.

        Raises:
            SettingsError: the training dataset lacks a row, or a batch has too few for the micro-batches of an update.
        """
        trainer: Any = self._trainer
        micro = self._micro_batches(batches)
        trainer.model.load_state_dict(self._weights)
        trainer.optimizer, trainer.lr_scheduler = self._optimizer, None
        if self._optimizer is not None and self._optimizer_state is not None:
            self._optimizer.load_state_dict(copy.deepcopy(self._optimizer_state))
        before = trainer.args, trainer.train_dataset, trainer.get_train_dataloader
        load = trainer.get_train_dataloader

        def loader() -> Any:
            usual = torch_loader(load())
            fixed = torch.utils.data.DataLoader(
                usual.dataset, batch_sampler=_Batches(micro), collate_fn=usual.collate_fn
            )
            return trainer.accelerator.prepare(fixed)

        trainer.args = copy.copy(trainer.args)
        # Nothing is to be saved or evaluated but by the recorder.
        changed = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
        vars(trainer.args).update(changed | {"max_steps": len(batches)})
        trainer.train_dataset, trainer.get_train_dataloader = self._rows, loader
        try:
            self._attach(trainer)
            trainer.train()
        finally:
            trainer.args, trainer.train_dataset, _ = before
            vars(trainer).pop("get_train_dataloader", None)

    def _micro_batches(self, batches: Curriculum) -> list[list[int]]:
        """Places of rows in the training dataset, for each pass forward and backward."""
        place: dict[int, int] = {}
        for row, own_id in enumerate(self._own_ids()):
            place.setdefault(self._examples.number(own_id, f"training row {row}"), row)
        lacking = sorted({number for batch in batches for number in batch} - place.keys())
        if lacking:
            raise SettingsError(
                f"the training dataset lacks {len(lacking)} pool rows that changed runs train on, e.g. row "
                f"{lacking[0]}: give attach(..., rows=...) all rows of the pool, as the training dataset has them"
            )
        passes = self._trainer.args.gradient_accumulation_steps
        micro: list[list[int]] = []
        for number, batch in enumerate(batches, start=1):
            if len(batch) < passes:
                raise SettingsError(f"update {number} has {len(batch)} rows for {passes} micro-batches: share less out")
            ends = [round(part * len(batch) / passes) for part in range(passes + 1)]
            micro += [[place[each] for each in batch[a:b]] for a, b in pairwise(ends)]
        return micro

    def _own_ids(self) -> list[Any]:
        if hasattr(self._rows, "column_names"):
            return list(self._rows.with_format(None)[self._id_column])
        return [self._rows[row][self._id_column] for row in range(len(self._rows))]
