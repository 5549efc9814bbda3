"""Recording a user's own training loop, update by update."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from gptdynamics.dataset.recorded import RecordSettings
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.recorder.description import (
    adapter_columns,
    adapter_hyperparameters,
    learning_rate,
    optimizer_columns,
    optimizer_defaults,
)
from gptdynamics.recorder.examples import Rows
from gptdynamics.recorder.kernels import kernel_plan
from gptdynamics.recorder.processes import gather_ids, in_main
from gptdynamics.recorder.recorder import Recorder
from gptdynamics.recorder.recording import Recording
from gptdynamics.settings.kernels import KernelSettings


class StepRecorder(Recorder):
    """Records a training loop as a run of a dataset folder. The training itself is not changed.

    Within `with StepRecorder(...) as recorder:`, each update is made in a block `with recorder.step(ids):`. The model
    is measured when the recorder is entered and after updates; the run is written when it is left without an error.

    Args:
        out: the dataset folder, which may not exist yet.
        config: `<task>_<size>`: a known task or a name for your own, and a name for the base model.
        pool: training examples: `Example`s, or rows with `prompt` and `target` (or `completion`).
        test: examples to measure, in the same form.
        model: the model that is trained.
        tokenizer: of the model.
        optimizer: of the model; the learning rate of an update is that of its first group at `step()`.
        run: name of the run, such as `0004`, which decides its split. None: the next free one.
        settings: how runs are measured.
        hyperparameters: further settings of the training to record; values that JSON cannot hold become text.
        seed: of the training, if it has one.
        id_column: the column of pool rows that has their ids. The id of a row without one is its number.
        kernels: compute the run's kernels (products of the gradients of all pool and test examples, over all trainable
            weights) at evenly spaced steps, as `collect --kernels` does: `KernelSettings`, or True for its defaults.
        updates: number of updates that the loop will make, if it is known; needed for `kernels`.

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
        model: torch.nn.Module,
        tokenizer: Any,
        optimizer: torch.optim.Optimizer,
        run: str | None = None,
        settings: RecordSettings | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        seed: int | None = None,
        id_column: str = "id",
        kernels: KernelSettings | bool = False,
        updates: int | None = None,
    ) -> None:
        self.recording = Recording(out, config, pool, test, run, settings, id_column, kernels)
        # Raises its error here, before the model is prepared for training.
        kernel_plan(self.recording.kernel_settings, updates)
        self._planned = updates
        self.model, self.tokenizer, self.optimizer = model, tokenizer, optimizer
        self.hyperparameters = dict(hyperparameters or {})
        self.seed = seed
        self._updates = 0
        self._rates: list[float | None] = []
        self._depth = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> StepRecorder:
        if self.recording.finished or self._hooks:
            raise SettingsError("a recorder records one run: create another one for the next run")
        in_main(lambda: self.recording.begin(self.model, self.tokenizer, self._planned))
        # accelerate's optimiser wraps one of torch's, which is called only if the weights change.
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        self._hooks = [inner.register_step_pre_hook(self._before_step), inner.register_step_post_hook(self._after_step)]
        return self

    def _before_step(self, optimizer: Any, arguments: Any, keywords: Any) -> None:
        # The `step` of a subclass may call that of its base class, which torch's hooks see as another call.
        self._depth += 1
        if self._depth > 1:
            return
        try:
            self._rates.append(learning_rate(optimizer))
        except Exception:
            self._rates.append(None)

    def _after_step(self, optimizer: Any, arguments: Any, keywords: Any) -> None:
        self._depth -= 1

    @contextmanager
    def step(self, ids: Iterable[Any]) -> Iterator[None]:
        """One update: all of its forward and backward passes, and one `optimizer.step()`.

        Args:
            ids: ids of the pool examples in its batch, of all accumulated micro-batches; in distributed training, each
                process gives its own.

        Raises:
            DataError: there are no ids, or one is not of the pool.
            SettingsError: `optimizer.step()` was not called exactly once within.
        """
        if not self._hooks:
            raise SettingsError("recorder.step must be called within `with recorder:`")
        update = self._updates + 1
        numbers, problem = self._numbers(ids, update)
        if problem and not self._updates:
            raise DataError(problem)
        self._rates, self._depth = [], 0
        yield
        if len(self._rates) != 1:
            message = (
                f"update {update}: optimizer.step() was called {len(self._rates)} times within the block, but a block "
                "must have exactly one update"
            )
            if not self._updates:
                raise SettingsError(message)
            problem = problem or message
        self._updates = update
        numbers = gather_ids(numbers)
        if problem:
            self.recording.attempt(lambda: self.recording.lose(problem))
        else:
            self.recording.attempt(lambda: self.recording.after_update(numbers, self._rates[0]))

    def _numbers(self, ids: Iterable[Any], update: int) -> tuple[list[int], str]:
        """The numbers of the examples in a batch, and what is wrong with their ids, if anything."""
        try:
            numbers = [self.recording.examples.number(own_id, f"update {update}") for own_id in ids]
        except DataError as error:
            return [], str(error)
        return numbers, "" if numbers else f"update {update}: no ids; give those of the pool examples in its batch"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        try:
            if error is None:
                self.recording.attempt(self._finish)
        finally:
            self.recording.stop()

    def _finish(self) -> None:
        columns = {"seed": self.seed, "schedule": "as recorded"}
        columns |= optimizer_columns(self.optimizer) | adapter_columns(self.model)
        settings = optimizer_defaults(self.optimizer) | adapter_hyperparameters(self.model) | self.hyperparameters
        self.recording.finish(columns, settings)
