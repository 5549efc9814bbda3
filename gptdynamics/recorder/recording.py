"""One run in the making: what is measured of a model that somebody trains, and how it gets into a dataset folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptdynamics.collection.claims import Claims
from gptdynamics.configs import config_parts, run_name, run_parts
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import EARLIER_RECORDING
from gptdynamics.dataset.ownership import check_dataset_folder
from gptdynamics.dataset.recorded import Recorded, RecordSettings
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.tables import trajectory_table
from gptdynamics.errors import DivergedRunError, SettingsError
from gptdynamics.measurement import TestSet
from gptdynamics.measurement.test_set import new_token_limits
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.local_models import published_name, remember_folder
from gptdynamics.recorder.base import measured_model, started_from
from gptdynamics.recorder.checkpoint import Partial, save_partial, unfinished_path
from gptdynamics.recorder.description import run_table
from gptdynamics.recorder.examples import RecordedExamples, Rows, recorded_examples
from gptdynamics.recorder.measured_tokens import TestTokens, Training, find_test_tokens
from gptdynamics.recorder.row_texts import TemplateChat, has_messages
from gptdynamics.recorder.undisturbed import undisturbed
from gptdynamics.runs import Run, RunTiming
from gptdynamics.runs.measurements import Measurements
from gptdynamics.tasks import Mixture, Task, get_task, is_registered
from gptdynamics.tasks.declared import declared_task

logger = logging.getLogger(__name__)

# What two machines make of the same model differs by less, another model by more.
START_TOLERANCE = 0.01
# Seconds between savings of what is known.
SAVE_EVERY = 10.0


class Recording:
    """One run in the making. It writes to the folder when it begins and ends, and keeps there what is known between.

    Args:
        out: the dataset folder.
        config: `<task>_<size>`.
        pool, test: examples that the training draws from, and examples that are followed.
        run: its name. None: the next number that is free.
        settings: how runs are measured.
        id_column: what the user's rows call their ids.

    Attributes:
        examples: pool and test set, numbered.
        run: name of the run, once it is known.
        failure: why the run has no numbers, or None.
        finished: whether the run has ended, with numbers or without.
        begun: whether it was measured before its first update.

    Raises:
        SettingsError: a name or a setting is not sound.
        DataError: an example is not.
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
    ) -> None:
        check_dataset_folder(Path(out), "out")
        self.folder = DatasetFolder(Path(out))
        self.config, name = config, config_parts(config)[0]
        self.run = run
        if run is not None:
            run_parts(run)
        self.settings = settings or RecordSettings()
        self.declared = not is_registered(name)
        if not self.declared and self.settings.labels is not None:
            raise SettingsError(f"{name} is a known task and has its own labels: leave labels out")
        self.task: Task | Mixture = declared_task(name, self.settings.labels or ()) if self.declared else get_task(name)
        self.id_column = id_column
        self.rows = (list(pool), list(test))
        self.examples: RecordedExamples = recorded_examples(*self.rows, self.task, id_column)
        self.failure: str | None = None
        self.finished = False
        self.begun = False
        self._claims = Claims(self.folder.root)
        self._claim: str | None = None
        self._saved = self._pause = 0.0
        self._unknown_rate = False

    def begin(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        steps: int | None,
        resumed: Partial | None = None,
        training: Training | None = None,
    ) -> None:
        """Claim a run, measure the model before its first update, and write what the config's runs share.

        Args:
            model: that will be trained.
            tokenizer: of the model.
            steps: updates that there will be, if that is known.
            resumed: what was recorded before the checkpoint that training goes on from.
            training: what is known of the tokens that it trains on; None: nothing is.

        Raises:
            SettingsError: it cannot be recorded, or not in this folder; the message lists what differs.
            DataError: the folder has other texts under the same numbers, or which tokens are trained on is not known.
            DivergedRunError: a metric is not finite before the first update.
        """
        self.abandon()
        self.failure = None
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
        shared = vars(self.settings) | {"base_model": self.base_name, "declared": self.declared}
        counts = {
            "pool_size": len(self.examples.pool) // len(self.task.parts),
            "test_examples": len(self.examples.test) // len(self.task.test_parts),
        }
        self.recorded = Recorded(**(shared | counts), tokenization=tokens.tokenization)
        self.test_set = self._test_set(base, tokens)
        self.folder.check_recorded(self.config, self.base_revision, self.recorded.to_dict(), self.task)
        if resumed is not None:
            self._check_resumed(resumed)
        self._take(self.run if resumed is None else resumed.run, goes_on=resumed is not None)
        try:
            self._check_steps(steps)
            self._start(resumed)
            self._enter()
        except BaseException:
            self.abandon()
            raise
        self.begun = True

    def _tokens(self, base: BaseModel, training: Training | None) -> TestTokens:
        before = self.folder.recording(self.config)
        return find_test_tokens(
            base.tokenizer,
            self._tasks,
            min(base.context, self.settings.max_length),
            self.examples,
            self.rows,
            training,
            None if before is None else (EARLIER_RECORDING | before)["tokenization"],
        )

    @property
    def _tasks(self) -> dict[str, Task]:
        return {task.name: task for task in self.task.parts}

    def _test_set(self, base: BaseModel, tokens: TestTokens) -> TestSet:
        generating = [example for example in self.examples.pool if self._tasks[example.task].generates]
        limits = new_token_limits(generating, [tokens.for_limit(example) for example in generating])
        return TestSet(self.examples.test, base, self.recorded, limits, tokens, tasks=self._tasks)

    def _enter(self) -> None:
        """Write what the config's runs share, unless somebody else began it otherwise meanwhile."""
        self.folder.remove_leftovers()
        with self._claims.whole_folder():
            self.folder.check_recorded(self.config, self.base_revision, self.recorded.to_dict(), self.task)
            self.folder.add_examples(self.task.name, "pool", self.examples.pool)
            self.folder.add_examples(self.task.name, "test", self.examples.test)
            self.folder.begin_recorded(self.config, self.base_revision, self.name, self.recorded.to_dict(), self.task)
            self.folder.write_card()

    def _check_resumed(self, resumed: Partial) -> None:
        now = {"config": self.config, "base_revision": self.base_revision} | self.recorded.to_dict()
        then = {"config": resumed.config, "base_revision": resumed.base_revision} | EARLIER_RECORDING | resumed.recorded
        if self.run is not None:
            now, then = now | {"run": self.run}, then | {"run": resumed.run}
        differ = [f"{name}: {then.get(name)!r} then, {now[name]!r} now" for name in now if then.get(name) != now[name]]
        if differ:
            raise SettingsError(f"before the checkpoint the run was recorded otherwise ({'; '.join(differ)})")

    def _take(self, wanted: str | None, goes_on: bool = False) -> None:
        """Claim a run by name, or the next number that is free; one that was begun before may go on."""
        there = {*self.folder.finished(self.config), *(self.folder.failed(self.config) if wanted is None else ())}
        names = [wanted] if wanted is not None else map(run_name, range(len(there) + 10**6))
        for name in names:
            if name in there:
                continue
            claim = f"{self.config}.{name}"
            if not self._claims.take(claim):
                continue
            if name in self.folder.finished(self.config):
                # By somebody who has just ended.
                self._claims.give_back(claim)
                continue
            self._claim, self.name = claim, name
            if self._unfinished.exists() and not goes_on:
                logger.warning(
                    "run %s of %s was begun by a training that did not end: its unfinished record in %s is replaced",
                    name,
                    self.config,
                    self._unfinished,
                )
            return
        if wanted in there:
            raise SettingsError(f"{self.folder.root} has run {wanted} of {self.config}: name another run, or none")
        raise SettingsError(f"run {wanted} of {self.config} is being recorded by another process")

    @property
    def _unfinished(self) -> Path:
        return unfinished_path(self.folder.root, self.config, self.name)

    def _others(self) -> list[str]:
        return [run for run in self.folder.finished(self.config) if run != self.name]

    def _check_steps(self, steps: int | None) -> None:
        others = self._others()
        if steps is None or not others:
            return
        theirs = read_parquet(self.folder.run_row_path(self.config, others[0]), ["learning_rate"])
        updates = len(theirs["learning_rate"][0])
        if updates != steps:
            raise SettingsError(
                f"runs of {self.config} have {updates} updates, and this training will have {steps}: "
                "train as long, or record it as another config"
            )

    def _start(self, resumed: Partial | None) -> None:
        self.timing = RunTiming()
        shared = self.recorded
        index, unseen = run_parts(self.name)
        mixed = torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=shared.precision == "bf16")
        seed = [shared.seed, index, 1] if unseen else [shared.seed, index]
        self.measurements = Measurements(
            self.test_set, shared.eval_every, shared.generate_every, seed, mixed, self.timing
        )
        self.curriculum: list[list[int]] = []
        self.rates: list[float] = []
        self.failure = None
        if resumed is None:
            with undisturbed(self.model):
                self.measurements.take(self.model, 0)
            self._check_start()
            return
        self.curriculum, self.rates = list(resumed.curriculum), list(resumed.rates)
        self.measurements.step, self.measurements.generation_step = list(resumed.step), list(resumed.generation_step)
        self.measurements.values = {name: list(values) for name, values in resumed.values.items()}
        self.failure = resumed.failure or None

    def _measure(self, last: bool = False) -> None:
        try:
            with undisturbed(self.model):
                self.measurements.take(self.model, len(self.curriculum), last)
        except DivergedRunError as error:
            self.fail(str(error))

    def _check_start(self) -> None:
        """All runs of a config start from the same model: before the first update, every loss is that of the others."""
        others = self._others()
        if not others:
            return
        table = read_parquet(self.folder.run_path(self.config, others[0]), ["test_id", "loss"])
        theirs = np.array([values[0] for values in table["loss"].to_pylist()])
        mine = self.measurements.values["loss"][0]
        off = np.abs(mine - theirs) > START_TOLERANCE * (1 + np.abs(theirs))
        # Adapters that do not begin as nothing begin elsewhere in every run.
        if off.any() and not self._adapted_already(mine):
            at = int(np.argmax(off))
            raise SettingsError(
                f"the model does not start where run {others[0]} of {self.config} did: the loss of test example {at} "
                f"is {mine[at]:.4f}, there {theirs[at]:.4f}. Start from {self.base_name} as it was loaded, with its "
                "tokenizer, or record it as another config"
            )

    def _adapted_already(self, loss: np.ndarray) -> bool:
        """Whether adapters make another model of the base model before the first update."""
        if not hasattr(self.trained, "disable_adapter"):
            return False
        with undisturbed(self.model), self.trained.disable_adapter(), self.measurements.mixed:
            without = self.test_set.measure(self.model)["loss"]
        return bool((np.abs(loss - without) > START_TOLERANCE * (1 + np.abs(without))).any())

    def after_update(self, numbers: Sequence[int], rate: float | None, last: bool = False) -> None:
        """Note an update, and measure if it is time.

        Args:
            numbers: of the pool examples in its batch.
            rate: the learning rate that it used; None: it is not known.
            last: whether it is known to be the last.
        """
        if self.failure is not None:
            return
        if min(numbers, default=-1) < 0:
            why = "a row has no id of a pool example" if numbers else "no batch of it came from the dataloader"
            self.lose(f"which examples are in update {len(self.curriculum) + 1} is not known: {why}")
            return
        if rate is None and not self._unknown_rate:
            self._unknown_rate = True
            logger.warning(
                "run %s of %s: the optimiser does not say its learning rate; 0 is recorded", self.name, self.config
            )
        self.curriculum.append(list(numbers))
        self.rates.append(rate or 0.0)
        self.measure_if_due(last)
        self._save_now_and_then()

    def _save_now_and_then(self) -> None:
        """Keep what is known: seldom enough to cost nothing, often enough that a crash loses little."""
        begun = time.monotonic()
        if begun - self._saved < self._pause:
            return
        save_partial(self._unfinished, self.partial())
        self._saved = time.monotonic()
        self._pause = max(SAVE_EVERY, 50 * (self._saved - begun))

    def keep(self) -> Path | None:
        """Keep what is known of a run that will not be finished; where, or None if there is nothing."""
        if not self.begun or self.finished or not self.curriculum or self._claim is None:
            return None
        try:
            save_partial(self._unfinished, self.partial())
        except Exception as error:
            logger.warning("run %s of %s: its record so far cannot be kept (%s)", self.name, self.config, error)
            return None
        return self._unfinished

    def lose(self, reason: BaseException | str) -> None:
        """End a recording that cannot go on. The training does; it is told once what is missing.

        Args:
            reason: what went wrong.
        """
        said = reason if isinstance(reason, str) else f"recording failed ({type(reason).__name__}: {reason})"
        kept = self.keep()
        self.failure = said
        try:
            self.folder.add_failure(self.config, self.name, said)
        except Exception as error:
            logger.debug("%s", error)
        logger.warning(
            "run %s of %s is not recorded: %s (after %d recorded updates). The training goes on. %s",
            self.name,
            self.config,
            said,
            len(self.curriculum),
            f"What was recorded is kept in {kept}" if kept else "Nothing of it is kept",
        )
        self.finished = True
        self.abandon()

    def measure_if_due(self, last: bool = False) -> None:
        """Measure, if it is time and it was not done yet.

        Args:
            last: whether there will be no more updates; then it is time.
        """
        if self.failure is None and self.measurements.due(len(self.curriculum), last):
            self._measure(last)

    def partial(self) -> Partial:
        """What is known so far."""
        return Partial(
            config=self.config,
            run=self.name,
            recorded=self.recorded.to_dict(),
            base_revision=self.base_revision,
            curriculum=self.curriculum,
            rates=self.rates,
            step=self.measurements.step,
            generation_step=self.measurements.generation_step,
            values=self.measurements.metrics,
            failure=self.failure or "",
        )

    def finish(self, columns: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
        """Measure after the last update, if that was not done, and write the run.

        Args:
            columns: of the run's row, as far as the training knows them.
            hyperparameters: everything else that the training was told; plain values.
        """
        if self.failure is None and not self.curriculum:
            self.fail("there was no update")
        self.measure_if_due(last=True)
        if self.failure is None:
            try:
                self._check_steps(len(self.curriculum))
            except SettingsError as error:
                self.fail(f"it ended after {len(self.curriculum)} updates: {error}")
        if self.failure is None:
            self._write(columns, hyperparameters)
        self._unfinished.unlink(missing_ok=True)
        self.finished = True
        self.abandon()

    def _write(self, columns: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
        run = Run(
            name=self.name,
            curriculum=self.curriculum,
            learning_rate=self.rates,
            step=self.measurements.step,
            generation_step=self.measurements.generation_step,
            metrics=self.measurements.metrics,
            timing=self.timing,
        )
        base = (self.base_name, self.base_revision)
        if self._unknown_rate:
            hyperparameters = dict(hyperparameters) | {"learning_rate": "unknown, recorded as 0"}
        row = run_table(self.config, self.task.scenario, self.recorded, base, run, columns, hyperparameters)
        trajectories = trajectory_table(self.task, self.examples.test, run)
        with self._claims.whole_folder():
            self.folder.add_timing(self.config, run)
            self.folder.add_tables(self.config, self.name, row, trajectories)
            self.folder.write_card()

    def fail(self, reason: str) -> None:
        """Record that the run has no numbers. The training may go on; nothing more is measured."""
        self.failure = reason
        self.folder.add_failure(self.config, self.name, reason)
        logger.warning("run %s of %s is recorded as failed: %s", self.name, self.config, reason)

    def abandon(self) -> None:
        """Give the run's name back. What was not finished leaves no numbers."""
        if self._claim is not None:
            self._claims.give_back(self._claim)
            self._claim = None
