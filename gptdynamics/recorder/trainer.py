"""Recording a `transformers.Trainer`, or one of its kin such as TRL's `SFTTrainer`, while it trains."""

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
from gptdynamics.recorder.processes import in_main, is_main, together
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

    `attach` it to the trainer. Each row of the training dataset has the id of its pool example, and the ids travel with
    the batches to the training step. So samplers, accumulation, workers, several processes and resuming all work.

    Args:
        out: the dataset folder, which may not exist yet.
        config: `<task>_<size>`: a known task or a name for your own, and a name for the base model.
        pool: training examples: `Example`s, or rows with `prompt` and `target` (or `completion`).
        test: examples to measure, in the same form.
        run: name of the run, such as `0004`, which decides its split. None: the next free one.
        settings: how runs are measured.
        id_column: the column of pool and training rows that has their ids. The id of a pool row without one is its
            number.
        kernels: take the run's kernels (products of the gradients of all pool and test examples, over what is
            trainable) at steps spread evenly over it, as `collect --kernels` does: `KernelSettings`, or True for its
            defaults.

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
        self._again = {"out": out, "config": config, "settings": settings, "id_column": id_column}
        self._recipe: TrainerRecipe | None = None
        self.id_column = id_column
        self._trainer: Trainer | None = None
        self._checkpoint: Path | None = None
        self._batches: list[torch.Tensor] = []
        self._rate: float | None = None
        self._source: tuple[Any, CarryNumbers] | None = None
        self._start: str | None = None
        self._waiting: TrainerState | None = None

    def attach(self, trainer: Trainer, repeatable: bool = False, rows: Any = None) -> None:
        """Record the next `trainer.train()`. A callback alone is not told which examples are in a batch.

        Args:
            trainer: that is ready to train.
            repeatable: keep a copy of the weights, so that `recipe` can make the training again on other batches.
            rows: of the whole pool, as the training dataset has them, where that has only some; for `recipe`.

        Raises:
            SettingsError: the recorder is attached already, or the trainer has another recorder.
        """
        if self._trainer is not None:
            raise SettingsError("this recorder is attached to a trainer already: a run has a recorder of its own")
        others = (each for each in trainer.callback_handler.callbacks if isinstance(each, DynamicsRecorder))
        if any(each is not self and each._trainer is trainer for each in others):
            raise SettingsError("this trainer has a recorder already: attach another one after trainer.train()")
        self._trainer = trainer
        if repeatable:
            self._recipe = TrainerRecipe(trainer, self._attach_another, self.recording.examples, self.id_column, rows)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        trainer.train = self._recorded(trainer, trainer.train)

    @property
    def recipe(self) -> TrainerRecipe:
        """Makes the training again on other batches, for `simulator.validate(..., recipe=recorder.recipe)`.

        Raises:
            SettingsError: nothing was kept to begin from.
        """
        if self._recipe is None:
            raise SettingsError("no weights were kept to train again from: call attach(trainer, repeatable=True)")
        return self._recipe

    def _attach_another(self, trainer: Trainer) -> None:
        pool, test = self.recording.rows
        DynamicsRecorder(pool=pool, test=test, **self._again).attach(trainer)  # type: ignore[arg-type]

    def _recorded(self, trainer: Trainer, train: Callable[..., Any]) -> Callable[..., Any]:
        """The trainer's `train`, within which its dataloader and its training steps tell us what is in a batch."""
        own = vars(trainer).get("train")

        def recorded(resume_from_checkpoint: str | bool | None = None, *arguments: Any, **named: Any) -> Any:
            self._checkpoint = _checkpoint(resume_from_checkpoint, trainer.args)
            before = {name: vars(trainer).get(name) for name in ("get_train_dataloader", "training_step")}
            before["train"] = own
            trainer.get_train_dataloader = self._loading(trainer, trainer.get_train_dataloader)
            trainer.training_step = self._stepping(trainer, trainer.training_step)
            try:
                return train(resume_from_checkpoint, *arguments, **named)
            finally:
                for name, value in before.items():
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
            with keeping_column(trainer, self.id_column) as kept:
                loader = load()
            self._source = carry_numbers(loader, self.recording.examples, self.id_column, added=bool(kept))
            return loader

        return get_train_dataloader

    def _stepping(self, trainer: Trainer, step: Callable[..., Any]) -> Callable[..., Any]:
        def training_step(model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            numbers = inputs.pop(KEY, None)
            if numbers is None:
                self._cannot_continue(
                    trainer,
                    "a batch lost the ids of its pool examples between the dataloader and the training step: something "
                    "makes other batches of it. Record with StepRecorder, which is told the ids",
                )
            elif not trainer.state.global_step and int(numbers.min()) < 0:
                raise DataError(
                    self._source[1].problem if self._source and self._source[1].problem else "a training row has no id"
                )
            elif self._waiting is not None:
                state, self._waiting = self._waiting, None
                listed = numbers.tolist()
                in_main(lambda: self._begin(trainer, state, trainer.model, lambda: rows_of_first_batch(inputs, listed)))
            if numbers is not None:
                # Made a list at the end of the update only: a GPU is not waited for between.
                self._batches.append(numbers)
            return step(model, inputs, *arguments, **named)

        return training_step

    def _cannot_continue(self, trainer: Trainer, reason: str) -> None:
        """Refuse a training that has not begun; of one that has, only the recording ends."""
        if not trainer.state.global_step:
            raise DataError(reason)
        if is_main() and not self.recording.finished:
            self.recording.lose(reason)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any
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
        model = known["model"]
        if self._begun_again(model, args):
            return
        if self._source is None:
            raise SettingsError("the training dataset was not loaded by trainer.get_train_dataloader. Use StepRecorder")
        dataset, carry = self._source
        if not can_be_read(dataset):
            # What a stream gives can be taken once: its first batch shows how tokens are made.
            self._waiting = state
            return
        hidden = self.id_column if carry.added else None
        in_main(
            lambda: self._begin(
                trainer, state, model, lambda: rows_of_dataset(dataset, carry.collate, carry.number, hidden)
            )
        )

    def _begun_again(self, model: torch.nn.Module, args: TrainingArguments) -> bool:
        """Whether this training began before and cannot be recorded from here.

        `auto_find_batch_size` begins again with smaller batches when memory runs out, and the weights stay as they are.
        """
        if not args.auto_find_batch_size or not is_main():
            return self.recording.finished
        now = weights_digest(model, adapters=True)
        before, self._start = self._start, self._start or now
        if before is None or before == now or self.recording.finished:
            return self.recording.finished
        self.recording.lose(
            f"auto_find_batch_size began training again after {len(self.recording.curriculum)} updates, from weights "
            "that these had changed, so the run does not start from the base model. Set per_device_train_batch_size to "
            f"the {args.train_batch_size} that it has found, and auto_find_batch_size=False"
        )
        return True

    def _begin(self, trainer: Trainer, state: TrainerState, model: torch.nn.Module, rows: RowSource) -> None:
        resumed = None
        if state.global_step:
            if self._checkpoint is None:
                raise SettingsError(f"training begins at update {state.global_step}, and from where is not known")
            resumed = load_partial(self._checkpoint, state.global_step)
        training = Training(
            rows=rows,
            evaluation=lambda: self._evaluation(trainer),
            preparation=SFTPreparation(trainer),
            chat_template=getattr(trainer, "chat_template", None),
        )
        self.recording.begin(model, trainer.processing_class, state.max_steps, resumed, training)

    def _evaluation(self, trainer: Trainer) -> Iterator[tuple[int, LabelledRow]]:
        """Tokens of the test examples that the trainer's evaluation dataset has under their ids."""
        numbers = self.recording.examples.test_numbers

        def number(row: Any) -> int:
            own_id = plain_id(row.get(self.id_column)) if isinstance(row, Mapping) else None
            return numbers.get(own_id, -1) if isinstance(own_id, Hashable) else -1

        given = trainer.eval_dataset
        for name in given if isinstance(given, dict) else [None]:
            if (given[name] if name is not None else given) is None:
                continue
            with keeping_column(trainer, self.id_column) as kept:
                loader = torch_loader(trainer.get_eval_dataloader(name))
            hidden = self.id_column if kept else None
            if can_be_read(loader.dataset):
                yield from rows_of_dataset(
                    loader.dataset, loader.collate_fn, number, hidden, "evaluation", most=sys.maxsize
                )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any
    ) -> None:
        """Note the learning rate that the update uses."""
        self.recording.attempt(lambda: self._note_rate(known["optimizer"]))

    def _note_rate(self, optimizer: Any) -> None:
        self._rate = learning_rate(optimizer)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any) -> None:
        """Note the update, and measure if a measurement is due."""
        numbers = together([number for batch in self._batches for number in batch.tolist()])
        self._batches = []
        if self._trainer is not None and self._trainer.accelerator.optimizer_step_was_skipped:
            # Gradients of 16 bits overflowed: the weights were left as they are.
            self._rate = 0.0
        last = state.global_step >= state.max_steps or control.should_training_stop
        self.recording.attempt(lambda: self.recording.after_update(numbers, self._rate, last))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any) -> None:
        """Measure if training stops early: afterwards the best checkpoint may take the model's place."""
        if control.should_training_stop:
            self.recording.attempt(lambda: self.recording.measure_if_due(last=True))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any) -> None:
        """Save the record so far with the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            self.recording.attempt(lambda: save_partial(folder / NAME, self.recording.partial()))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any) -> None:
        """Write the run."""
        self.recording.attempt(lambda: self._finish(args, state, known))

    def _finish(self, args: TrainingArguments, state: TrainerState, known: dict[str, Any]) -> None:
        recording = self.recording
        replaced = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if recording.failure is None and replaced and recording.measurements.due(len(recording.curriculum), last=True):
            recording.fail("it ended early, and its last weights gave way to those of the best checkpoint")
        columns = trainer_columns(args) | optimizer_columns(known["optimizer"]) | adapter_columns(known["model"])
        recording.finish(columns, trainer_hyperparameters(args) | adapter_hyperparameters(known["model"]))


def _checkpoint(asked: str | bool | None, args: TrainingArguments) -> Path | None:
    """The checkpoint that a trainer goes on from: the last one in its folder, if it is only told to go on."""
    if asked is True:
        asked = get_last_checkpoint(str(args.output_dir))
    return Path(asked) if isinstance(asked, str) else None
