"""Recording a `transformers.Trainer`, or a subclass such as TRL's `SFTTrainer`, while it trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from gptdynamics.dataset.recorded import RecordSettings
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.recorder.base import weights_digest
from gptdynamics.recorder.batch_ids import (
    KEY,
    CarryNumbers,
    carry_numbers,
    check_column,
    keeping_column,
    torch_loader,
)
from gptdynamics.recorder.checkpoint import NAME, load_partial, save_partial
from gptdynamics.recorder.description import (
    adapter_columns,
    adapter_hyperparameters,
    learning_rate,
    optimizer_columns,
    trainer_columns,
    trainer_hyperparameters,
)
from gptdynamics.recorder.examples import Rows, plain_id
from gptdynamics.recorder.find_tokens import Training
from gptdynamics.recorder.processes import gather_ids, in_main, is_main
from gptdynamics.recorder.recorder import Recorder
from gptdynamics.recorder.recording import Recording
from gptdynamics.recorder.trained_tokens import (
    LabelledRow,
    RowSource,
    SFTPreparation,
    can_be_read,
    rows_of_dataset,
    rows_of_first_batch,
)
from gptdynamics.recorder.trainer_recipe import TrainerRecipe
from gptdynamics.settings.kernels import KernelSettings

_UNSUPPORTED = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA")


class DynamicsRecorder(Recorder, TrainerCallback):
    """Records a trainer's next training as a run of a dataset folder. The training itself is not changed.

    `attach` it to the trainer. Each row of the training dataset has the id of its pool example, and batches carry the
    ids to the training step. So samplers, accumulation, workers, several processes and resuming all work.

    Args:
        out: the dataset folder, which may not exist yet.
        config: `<task>_<size>`: a known task or a name for your own, and a name for the base model.
        pool: training examples: `Example`s, or rows with `prompt` and `target` (or `completion`).
        test: examples to measure, in the same form.
        run: name of the run, such as `0004`, which decides its split. None: the next free one.
        settings: how runs are measured.
        id_column: the column of pool and training rows that has their ids. The id of a pool row without one is its
            number.
        kernels: compute the run's kernels (products of the gradients of all pool and test examples, over all trainable
            weights) at evenly spaced steps, as `collect --kernels` does: `KernelSettings`, or True for its defaults.

    Raises:
        SettingsError: a name or a setting is wrong.
        DataError: an example is wrong.
    """

    def __init__(
        self,
        out: str | Path,
        config: str,
        pool: Rows,
        test: Rows,
        run: str | None = None,
        settings: RecordSettings | None = None,
        id_column: str = "id",
        kernels: KernelSettings | bool = False,
    ) -> None:
        self.recording = Recording(out, config, pool, test, run, settings, id_column, kernels)
        self._settings = {"out": out, "config": config, "settings": settings, "id_column": id_column}
        self._recipe: TrainerRecipe | None = None
        self.id_column = id_column
        self._trainer: Trainer | None = None
        self._checkpoint: Path | None = None
        self._batches: list[torch.Tensor] = []
        self._rate: float | None = None
        self._source: tuple[Any, CarryNumbers] | None = None
        self._initial_digest: str | None = None
        self._waiting_state: TrainerState | None = None

    def attach(self, trainer: Trainer, repeatable: bool = False, rows: Any = None) -> None:
        """Record the next `trainer.train()`. A callback alone cannot know which examples are in a batch.

        Args:
            trainer: a trainer that is ready to train.
            repeatable: keep a copy of the weights, so that `recipe` can repeat the training on other batches.
            rows: all rows of the pool in the form of the training dataset, if that has only some; for `recipe`.

        Raises:
            SettingsError: the recorder is already attached, or the trainer has another recorder.
        """
        if self._trainer is not None:
            raise SettingsError("this recorder is already attached to a trainer: create a new one for another run")
        recorders = (
            recorder for recorder in trainer.callback_handler.callbacks if isinstance(recorder, DynamicsRecorder)
        )
        if any(recorder is not self and recorder._trainer is trainer for recorder in recorders):
            raise SettingsError("this trainer already has a recorder: attach another one after trainer.train()")
        self._trainer = trainer
        if repeatable:
            self._recipe = TrainerRecipe(trainer, self._attach_another, self.recording.examples, self.id_column, rows)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        trainer.train = self._recorded(trainer, trainer.train)

    @property
    def recipe(self) -> TrainerRecipe:
        """Repeats the training on other batches, for `simulator.validate(..., recipe=recorder.recipe)`.

        Raises:
            SettingsError: the initial weights were not kept.
        """
        if self._recipe is None:
            raise SettingsError("no initial weights were kept to train again: call attach(trainer, repeatable=True)")
        return self._recipe

    def _attach_another(self, trainer: Trainer) -> None:
        pool, test = self.recording.rows
        DynamicsRecorder(pool=pool, test=test, **self._settings).attach(trainer)  # type: ignore[arg-type]

    def _recorded(self, trainer: Trainer, train: Callable[..., Any]) -> Callable[..., Any]:
        """The trainer's `train` with its dataloader and training step wrapped, to learn the examples of each batch."""
        original_train = vars(trainer).get("train")

        def recorded(resume_from_checkpoint: str | bool | None = None, *arguments: Any, **keywords: Any) -> Any:
            self._checkpoint = _checkpoint(resume_from_checkpoint, trainer.args)
            originals = {name: vars(trainer).get(name) for name in ("get_train_dataloader", "training_step")}
            originals["train"] = original_train
            trainer.get_train_dataloader = self._loading(trainer, trainer.get_train_dataloader)
            trainer.training_step = self._stepping(trainer, trainer.training_step)
            try:
                return train(resume_from_checkpoint, *arguments, **keywords)
            finally:
                for name, value in originals.items():
                    vars(trainer).pop(name, None)
                    if value is not None:
                        setattr(trainer, name, value)
                trainer.remove_callback(self)
                self.recording.stop()

        return recorded

    def _loading(self, trainer: Trainer, load: Callable[[], Any]) -> Callable[[], Any]:
        def get_train_dataloader() -> Any:
            packed = bool(getattr(trainer.args, "packing", False))
            check_column(trainer.train_dataset, self.recording.examples, self.id_column, packed)
            with keeping_column(trainer, self.id_column) as removals:
                loader = load()
            self._source = carry_numbers(loader, self.recording.examples, self.id_column, added=bool(removals))
            return loader

        return get_train_dataloader

    def _stepping(self, trainer: Trainer, step: Callable[..., Any]) -> Callable[..., Any]:
        def training_step(model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
            numbers = inputs.pop(KEY, None)
            if numbers is None:
                self._cannot_continue(
                    trainer,
                    "a batch lost the ids of its pool examples between the dataloader and the training step, because "
                    "something replaced the batch. Record with StepRecorder, which is given the ids",
                )
            elif not trainer.state.global_step and int(numbers.min()) < 0:
                raise DataError(
                    self._source[1].problem if self._source and self._source[1].problem else "a training row has no id"
                )
            elif self._waiting_state is not None:
                state, self._waiting_state = self._waiting_state, None
                listed = numbers.tolist()
                in_main(lambda: self._begin(trainer, state, trainer.model, lambda: rows_of_first_batch(inputs, listed)))
            if numbers is not None:
                # Converted to a list only at the end of the update, to avoid waiting for a GPU.
                self._batches.append(numbers)
            return step(model, inputs, *arguments, **keywords)

        return training_step

    def _cannot_continue(self, trainer: Trainer, reason: str) -> None:
        """Raise an error before the first update; later, end only the recording."""
        if not trainer.state.global_step:
            raise DataError(reason)
        if is_main() and not self.recording.finished:
            self.recording.lose(reason)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure before the first update, or continue from the checkpoint."""
        trainer = self._trainer
        if trainer is None:
            raise SettingsError(
                "a callback alone cannot know which examples are in a batch: call recorder.attach(trainer) before "
                "trainer.train()"
            )
        kind = str(getattr(trainer.accelerator.distributed_type, "value", ""))
        if kind in _UNSUPPORTED:
            raise SettingsError(f"training with {kind} cannot be recorded: use one device, or data parallelism (DDP)")
        self._batches = []
        model = kwargs["model"]
        if self._restarted(model, args):
            return
        if self._source is None:
            raise SettingsError("the training dataset was not loaded by trainer.get_train_dataloader. Use StepRecorder")
        dataset, carry = self._source
        if not can_be_read(dataset):
            # An iterable dataset can be read only once: its first batch shows how tokens are made.
            self._waiting_state = state
            return
        hidden = self.id_column if carry.added else None
        in_main(
            lambda: self._begin(
                trainer, state, model, lambda: rows_of_dataset(dataset, carry.collate, carry.number, hidden)
            )
        )

    def _restarted(self, model: torch.nn.Module, args: TrainingArguments) -> bool:
        """Whether this training was restarted in a way that cannot be recorded.

        `auto_find_batch_size` restarts training with smaller batches when memory runs out, without resetting the
        weights.
        """
        if not args.auto_find_batch_size or not is_main():
            return self.recording.finished
        digest = weights_digest(model, adapters=True)
        initial_digest, self._initial_digest = self._initial_digest, self._initial_digest or digest
        if initial_digest is None or initial_digest == digest or self.recording.finished:
            return self.recording.finished
        self.recording.lose(
            f"auto_find_batch_size restarted training after {len(self.recording.curriculum)} updates, from weights "
            "that these had changed, so the run does not start from the base model. Set per_device_train_batch_size="
            f"{args.train_batch_size}, which it has found, and auto_find_batch_size=False"
        )
        return True

    def _begin(self, trainer: Trainer, state: TrainerState, model: torch.nn.Module, rows: RowSource) -> None:
        resumed = None
        if state.global_step:
            if self._checkpoint is None:
                raise SettingsError(
                    f"training begins at update {state.global_step}, but its checkpoint is unknown. Call "
                    "trainer.train(resume_from_checkpoint=...)"
                )
            resumed = load_partial(self._checkpoint, state.global_step)
        training = Training(
            rows=rows,
            evaluation=lambda: self._evaluation(trainer),
            preparation=SFTPreparation(trainer),
            chat_template=getattr(trainer, "chat_template", None),
        )
        self.recording.begin(model, trainer.processing_class, state.max_steps, resumed, training)

    def _evaluation(self, trainer: Trainer) -> Iterator[tuple[int, LabelledRow]]:
        """Tokens of the test examples whose ids are in the trainer's evaluation dataset."""
        numbers = self.recording.examples.test_numbers

        def number(row: Any) -> int:
            row_id = plain_id(row.get(self.id_column)) if isinstance(row, Mapping) else None
            return numbers.get(row_id, -1) if isinstance(row_id, Hashable) else -1

        dataset = trainer.eval_dataset
        for name in dataset if isinstance(dataset, dict) else [None]:
            if (dataset[name] if name is not None else dataset) is None:
                continue
            with keeping_column(trainer, self.id_column) as removals:
                loader = torch_loader(trainer.get_eval_dataloader(name))
            hidden = self.id_column if removals else None
            if can_be_read(loader.dataset):
                yield from rows_of_dataset(
                    loader.dataset, loader.collate_fn, number, hidden, "evaluation", limit=sys.maxsize
                )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Store the learning rate of the update."""
        self.recording.attempt(lambda: self._note_rate(kwargs["optimizer"]))

    def _note_rate(self, optimizer: Any) -> None:
        self._rate = learning_rate(optimizer)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record the update, and measure if a measurement is due."""
        numbers = gather_ids([number for batch in self._batches for number in batch.tolist()])
        self._batches = []
        if self._trainer is not None and self._trainer.accelerator.optimizer_step_was_skipped:
            # 16-bit gradients overflowed, and the weights were not changed.
            self._rate = 0.0
        last = state.global_step >= state.max_steps or control.should_training_stop
        self.recording.attempt(lambda: self.recording.after_update(numbers, self._rate, last))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure if training stops early, because the best checkpoint may then replace the weights."""
        if control.should_training_stop:
            self.recording.attempt(lambda: self.recording.measure_if_due(last=True))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the record so far with the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            self.recording.attempt(lambda: save_partial(folder / NAME, self.recording.partial()))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the run."""
        self.recording.attempt(lambda: self._finish(args, state, kwargs))

    def _finish(self, args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]) -> None:
        recording = self.recording
        replaced = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if recording.failure is None and replaced and recording.measurements.due(len(recording.curriculum), last=True):
            recording.fail("it ended early, and its last weights were replaced by those of the best checkpoint")
        columns = trainer_columns(args) | optimizer_columns(kwargs["optimizer"]) | adapter_columns(kwargs["model"])
        recording.finish(columns, trainer_hyperparameters(args) | adapter_hyperparameters(kwargs["model"]))


def _checkpoint(checkpoint: str | bool | None, args: TrainingArguments) -> Path | None:
    """The checkpoint that a trainer resumes from; the last one in its folder if `checkpoint` is True."""
    if checkpoint is True:
        checkpoint = get_last_checkpoint(str(args.output_dir))
    return Path(checkpoint) if isinstance(checkpoint, str) else None
