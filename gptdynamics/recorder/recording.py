"""One run while it is recorded: measures the user's model during its training, and writes a dataset folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gptdynamics.configs import config_parts, run_parts
from gptdynamics.console import say
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import EARLIER_RECORDING
from gptdynamics.dataset.ownership import check_dataset_folder
from gptdynamics.dataset.recorded import Recorded, RecordSettings
from gptdynamics.dataset.tables import trajectory_table
from gptdynamics.errors import DivergedRunError, SettingsError
from gptdynamics.measurement import TestSet
from gptdynamics.measurement.test_set import new_token_limits
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.local_models import published_name, remember_folder
from gptdynamics.recorder.base import measured_model, started_from
from gptdynamics.recorder.checkpoint import Partial, save_partial
from gptdynamics.recorder.checks import check_first_loss, check_resumed, check_updates, unlike_others
from gptdynamics.recorder.description import run_table
from gptdynamics.recorder.examples import RecordedExamples, Rows, recorded_examples
from gptdynamics.recorder.find_tokens import Training, find_test_tokens
from gptdynamics.recorder.kernels import begin_kernels, kernel_plan, kernel_settings, pool_tokens
from gptdynamics.recorder.measured_tokens import MeasuredTokens
from gptdynamics.recorder.processes import is_main
from gptdynamics.recorder.recorder import recording_line
from gptdynamics.recorder.retraining import redirected
from gptdynamics.recorder.row_texts import TemplateChat, has_messages
from gptdynamics.recorder.run_claim import RunClaim
from gptdynamics.recorder.trained_tokens import given_tokens
from gptdynamics.recorder.undisturbed import undisturbed
from gptdynamics.runs import RunTiming
from gptdynamics.runs.kernel_record import KernelRecord
from gptdynamics.runs.measurements import Measurements
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks import Mixture, Task, get_task, is_registered
from gptdynamics.tasks.declared import declared_task

logger = logging.getLogger(__name__)

# Least seconds between two saves of the unfinished record.
SAVE_EVERY = 10.0


class Recording:
    """One run while it is recorded. Writes to the folder at start and end, and saves its unfinished record meanwhile.

    Arguments are those of `DynamicsRecorder`.

    Attributes:
        examples: pool and test set, numbered.
        failure: why the run failed, or None.
        finished: whether the run has ended, failed or not.
        started: whether it was measured before its first update.
        written: whether the run is in the folder.
        repeats: whether a recipe repeats a run, see `retraining.py`.

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
        folder, self.repeats = redirected(Path(out))
        if self.repeats:
            run, kernels = None, False
        check_dataset_folder(folder, "out")
        self.folder = DatasetFolder(folder)
        self.config, task = config, config_parts(config)[0]
        self.requested_run = run
        if run is not None and run_parts(run).base is not None:
            raise SettingsError(
                f"run={run!r} is the name of a counterfactual run, which only collect makes. Give a name such as 0007"
            )
        self.settings = settings or RecordSettings()
        self.declared = not is_registered(task)
        if not self.declared and self.settings.labels is not None:
            raise SettingsError(f"{task} is a known task and has its own labels: leave labels out")
        self.task: Task | Mixture = declared_task(task, self.settings.labels or ()) if self.declared else get_task(task)
        self.id_column = id_column
        self.kernel_settings = kernel_settings(kernels)
        self.rows = (list(pool), list(test))
        self.examples: RecordedExamples = recorded_examples(*self.rows, self.task, id_column)
        self.failure: str | None = None
        self.finished = False
        self.started = self.written = False
        self.claim = RunClaim(self.folder, config)
        self._saved = self._pause = 0.0
        self._unknown_rate = False

    @property
    def run(self) -> str | None:
        """Name of the run; None before it is chosen."""
        return self.claim.run or self.requested_run

    @property
    def _name(self) -> str:
        return str(self.claim.run)

    def begin(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        steps: int | None,
        resumed: Partial | None = None,
        training: Training | None = None,
    ) -> None:
        """Claim a run, measure the model before its first update, and write the files that the config's runs share.

        Args:
            model: that will be trained.
            tokenizer: of the model.
            steps: number of updates; None: unknown.
            resumed: the record before the checkpoint, if training resumes from one.
            training: a Trainer's tokens; None: unknown.

        Raises:
            SettingsError: the training cannot be recorded, or not in this folder; the message lists what differs.
            DataError: the folder has other texts under the same numbers, or the trained tokens are unknown.
            DivergedRunError: a metric is not finite before the first update.
        """
        self.claim.give_back()
        self.failure = None
        self.kernel_plan = kernel_plan(self.kernel_settings, steps)
        self.trained, self.model = model, measured_model(model, self.settings.precision)
        revision = None if resumed is None else resumed.base_revision
        base = started_from(self.model, tokenizer, self.settings.base_model, revision)
        self.base_name, self.base_revision = published_name(base.name), base.revision
        remember_folder(base.name, base.revision)
        if any(has_messages(row) for part in self.rows for row in part):
            chat = TemplateChat(tokenizer, None if training is None else training.chat_template)
            self.examples = recorded_examples(*self.rows, self.task, self.id_column, chat)
        with undisturbed(self.model):
            tokens = self._tokens(base, training)
        self.recorded = Recorded(
            **vars(self.settings) | {"base_model": self.base_name, "declared": self.declared},
            pool_size=len(self.examples.pool) // len(self.task.parts),
            test_examples=len(self.examples.test) // len(self.task.test_parts),
            tokenization=tokens.tokenization,
        )
        self.test_set = self._test_set(base, tokens)
        self.kernels = self._begin_kernels(tokens, steps, resumed, training is not None)
        self.folder.check_recorded(self.config, self.base_revision, self.recorded.to_dict(), self.task)
        if resumed is not None:
            current = {"config": self.config, "base_revision": self.base_revision} | self.recorded.to_dict()
            current["kernels"] = self.kernel_plan
            check_resumed(resumed, current if self.requested_run is None else current | {"run": self.requested_run})
        self.claim.take(self.requested_run if resumed is None else resumed.run, resumed is not None)
        try:
            if steps is not None:
                check_updates(self.folder, self.config, self._name, steps)
            self._start(resumed)
            self._write_shared()
        except BaseException:
            self.claim.give_back()
            raise
        self.started = True

    def _tokens(self, base: BaseModel, training: Training | None) -> MeasuredTokens:
        earlier = self.folder.recording(self.config)
        return find_test_tokens(
            base.tokenizer,
            self._tasks,
            min(base.context, self.settings.max_length),
            self.examples,
            self.rows,
            training,
            None if earlier is None else (EARLIER_RECORDING | earlier)["tokenization"],
        )

    @property
    def _tasks(self) -> dict[str, Task]:
        return {task.name: task for task in self.task.parts}

    def _test_set(self, base: BaseModel, tokens: MeasuredTokens) -> TestSet:
        generating = [example for example in self.examples.pool if self._tasks[example.task].generates]
        limits = new_token_limits(generating, [tokens.for_limit(example) for example in generating])
        return TestSet(self.examples.test, base, self.recorded, limits, tokens, tasks=self._tasks)

    def _begin_kernels(
        self, tokens: MeasuredTokens, updates: int | None, resumed: Partial | None, inferred: bool
    ) -> KernelRecord | None:
        if self.kernel_settings is None or updates is None:
            return None
        pool = pool_tokens(tokens, self.examples.pool, given_tokens(self.rows[0], "pool"), inferred)
        return begin_kernels(self.model, pool, self.test_set.tokenized, updates, self.kernel_settings, resumed)

    def _take_kernel(self) -> None:
        """Compute the kernel, if it is due after the updates so far."""
        if self.kernels is None or self.failure is not None:
            return
        with undisturbed(self.model), self.measurements.timing.timed("products"):
            self.kernels.take_products(len(self.curriculum))

    def _write_shared(self) -> None:
        """Write the files that the config's runs share, if they agree with those that other processes have written."""
        self.folder.remove_leftovers()
        recorded = self.recorded.to_dict()
        with self.claim.whole_folder():
            self.folder.check_recorded(self.config, self.base_revision, recorded, self.task)
            self.folder.add_examples(self.task.name, "pool", self.examples.pool)
            self.folder.add_examples(self.task.name, "test", self.examples.test)
            self.folder.begin_recorded(self.config, self.base_revision, self._name, recorded, self.task)
            self.folder.write_card()

    def _start(self, resumed: Partial | None) -> None:
        self.measurements = Measurements(self.test_set, self.recorded, self._name, self.model.device, RunTiming())
        if resumed is not None:
            self.curriculum, self.rates = list(resumed.curriculum), list(resumed.rates)
            self.measurements.restore(resumed.step, resumed.generation_step, resumed.values)
            self.failure = resumed.failure or None
            return
        self.curriculum, self.rates = [], []
        with undisturbed(self.model):
            self.measurements.take(self.model, 0)
        check_first_loss(
            self.folder, self.config, self._name, self.base_name, self.measurements, self.model, self.trained
        )
        self._take_kernel()

    def after_update(self, numbers: Sequence[int], rate: float | None, last: bool = False) -> None:
        """Record an update, and measure if a measurement is due.

        Args:
            numbers: of the pool examples in its batch.
            rate: its learning rate; None: unknown.
            last: whether it is known to be the last update.
        """
        if self.failure is not None:
            return
        if min(numbers, default=-1) < 0:
            cause = "a row has no id of a pool example" if numbers else "no batch of it came from the dataloader"
            self.lose(f"the examples of update {len(self.curriculum) + 1} are unknown: {cause}")
            return
        if rate is None and not self._unknown_rate:
            self._unknown_rate = True
            logger.warning(
                "run %s of %s: the optimiser's learning rate is unknown; 0 is recorded", self._name, self.config
            )
        self.curriculum.append(list(numbers))
        self.rates.append(rate or 0.0)
        self.measure_if_due(last)
        self._take_kernel()
        self._save_sometimes()

    def _save_sometimes(self) -> None:
        """Save the record so far, at intervals that cost at most 2% of the time."""
        start = time.monotonic()
        if start - self._saved < self._pause:
            return
        save_partial(self.claim.unfinished, self.partial())
        self._saved = time.monotonic()
        self._pause = max(SAVE_EVERY, 50 * (self._saved - start))

    def attempt(self, record: Callable[[], None]) -> None:
        """Record something, in the main process. After any error in it, the training continues without recording."""
        if not is_main() or self.finished or not self.started:
            return
        try:
            record()
        except Exception as error:
            self.lose(error)

    def keep(self) -> Path | None:
        """Save the record of a run that will not be finished; its path, or None if there is nothing to save."""
        if not self.started or self.finished or not self.curriculum or not self.claim.held:
            return None
        try:
            save_partial(self.claim.unfinished, self.partial())
        except Exception as error:
            logger.warning("run %s of %s: its record so far cannot be saved (%s)", self._name, self.config, error)
            return None
        return self.claim.unfinished

    def lose(self, reason: BaseException | str) -> None:
        """End a recording that cannot continue, and warn once. The training continues."""
        failure = reason if isinstance(reason, str) else f"recording failed ({type(reason).__name__}: {reason})"
        path = self.keep()
        self.failure = failure
        try:
            self.folder.add_failure(self.config, self._name, failure)
        except Exception as error:
            logger.debug("%s", error)
        logger.warning(
            "run %s of %s is not recorded: %s (after %d recorded updates). The training continues. %s",
            self._name,
            self.config,
            failure,
            len(self.curriculum),
            f"The record so far is in {path}" if path else "No record is saved",
        )
        self._end()

    def stop(self) -> None:
        """Release the run's claim; if the training ended early, save its record so far."""
        if is_main() and (path := self.keep()) is not None:
            logger.warning("training ended early: the record of run %s so far is in %s", self.run, path)
        self.claim.give_back()

    def _end(self) -> None:
        self.finished = True
        self.claim.give_back()

    def measure_if_due(self, last: bool = False) -> None:
        """Measure, if a measurement is due, as it always is after the `last` update."""
        if self.failure is not None or not self.measurements.due(len(self.curriculum), last):
            return
        try:
            with undisturbed(self.model):
                self.measurements.take(self.model, len(self.curriculum), last)
        except DivergedRunError as error:
            self.fail(str(error))

    def partial(self) -> Partial:
        """The record so far."""
        return Partial(
            config=self.config,
            run=self._name,
            recorded=self.recorded.to_dict(),
            base_revision=self.base_revision,
            curriculum=self.curriculum,
            rates=self.rates,
            step=self.measurements.step,
            generation_step=self.measurements.generation_step,
            values=self.measurements.metrics,
            failure=self.failure or "",
            kernels=self.kernel_plan,
            kernel_checkpoints=self.kernels.checkpoints if self.kernels else [],
            products=self.kernels.products if self.kernels else {},
        )

    def finish(self, columns: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
        """Measure after the last update, if that has not been done, and write the run.

        Args:
            columns: settings of the training that have columns in the run's row.
            hyperparameters: all other settings of the training; plain values.
        """
        if self.failure is None and not self.curriculum:
            self.fail("the training made no update")
        self.measure_if_due(last=True)
        if self.failure is None:
            try:
                check_updates(self.folder, self.config, self._name, len(self.curriculum))
            except SettingsError as error:
                self.fail(f"it ended after {len(self.curriculum)} updates: {error}")
        if self.failure is None:
            difference = self._write(columns, hyperparameters)
            if not self.repeats:
                say(recording_line(self))
                if difference:
                    say(f"note: {difference}")
        self.claim.unfinished.unlink(missing_ok=True)
        self._end()

    def _write(self, columns: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> str:
        run = self.measurements.as_run(self.curriculum, self.rates, self.kernels)
        if self._unknown_rate:
            hyperparameters = dict(hyperparameters) | {"learning_rate": "unknown, recorded as 0"}
        base = (self.base_name, self.base_revision)
        row = run_table(self.config, self.task.scenario, self.recorded, base, run, columns, hyperparameters)
        trajectories = trajectory_table(self.task, self.examples.test, run)
        with self.claim.whole_folder():
            self.folder.add_products(self.config, range(len(self.examples.pool)), run)
            self.folder.add_timing(self.config, run)
            self.folder.add_tables(self.config, self._name, row, trajectories)
            self.folder.write_card()
        self.written = True
        sizes = [len(batch) for batch in self.curriculum]
        return unlike_others(self.folder, self.config, self._name, self.rates, max(sizes, key=sizes.count))

    def fail(self, reason: str) -> None:
        """Record the run as failed. The training may continue, but nothing more is measured."""
        self.failure = reason
        self.folder.add_failure(self.config, self._name, reason)
        logger.warning("run %s of %s is recorded as failed: %s", self._name, self.config, reason)
