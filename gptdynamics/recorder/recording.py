"""One run in the making: what is measured of a model that somebody trains, and how it gets into a dataset folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptdynamics.base_model import BaseModel
from gptdynamics.collection.claims import Claims
from gptdynamics.configs import config_parts, run_name, run_parts
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.ownership import check_dataset_folder
from gptdynamics.dataset.recorded import EARLIER_RECORDING, Recorded, RecordSettings
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.tables import trajectory_table
from gptdynamics.errors import DivergedRunError, SettingsError
from gptdynamics.local_models import published_name, remember_folder
from gptdynamics.measurement import TestSet
from gptdynamics.measurement.test_set import new_token_limits
from gptdynamics.recorder.base import measured_model, started_from
from gptdynamics.recorder.description import run_table
from gptdynamics.recorder.examples import RecordedExamples, Rows, recorded_examples
from gptdynamics.recorder.undisturbed import undisturbed
from gptdynamics.runs import Run, RunTiming
from gptdynamics.runs.measurements import Measurements
from gptdynamics.tasks import get_single_task, get_task, is_registered
from gptdynamics.tasks.declared import declare_task
from gptdynamics.tokens import tokenize_example

logger = logging.getLogger(__name__)

# What two machines make of the same model differs by less, another model by more.
START_TOLERANCE = 0.01


@dataclass(frozen=True)
class Partial:
    """What a recording knows after some updates; it is kept with a checkpoint of the training.

    Attributes:
        config, run: which run it is.
        recorded: what the runs of the config share; plain values.
        base_revision: of the model that the run started from.
        curriculum, rates: batches of pool numbers, and learning rates, of the updates so far.
        step, generation_step: at which loss, and text, were measured.
        values: `[measured steps, test examples]` float32 by metric.
        failure: why the run has no numbers; empty if it has.
    """

    config: str
    run: str
    recorded: dict[str, Any]
    base_revision: str
    curriculum: list[list[int]]
    rates: list[float]
    step: list[int]
    generation_step: list[int]
    values: dict[str, np.ndarray]
    failure: str


class Recording:
    """One run in the making. It writes to the folder when it begins and when it ends, and nothing between.

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
        self.config, self.task = config, config_parts(config)[0]
        self.run = run
        if run is not None:
            run_parts(run)
        self.settings = settings or RecordSettings()
        self.declared = not is_registered(self.task)
        if self.declared:
            declare_task(self.task, self.settings.labels or ())
        elif self.settings.labels is not None:
            raise SettingsError(f"{self.task} is a known task and has its own labels: leave labels out")
        self.examples: RecordedExamples = recorded_examples(pool, test, self.task, id_column)
        self.failure: str | None = None
        self.finished = False
        self._claims = Claims(self.folder.root)
        self._claim: str | None = None

    def begin(self, model: torch.nn.Module, tokenizer: Any, steps: int | None, resumed: Partial | None = None) -> None:
        """Claim a run, measure the model before its first update, and write what the config's runs share.

        Args:
            model: that will be trained.
            tokenizer: of the model.
            steps: updates that there will be, if that is known.
            resumed: what was recorded before the checkpoint that training goes on from.

        Raises:
            SettingsError: it cannot be recorded, or not in this folder; the message lists what differs.
            DataError: the folder has other texts under the same numbers.
            DivergedRunError: a metric is not finite before the first update.
        """
        self.abandon()
        self.model = measured_model(model, self.settings.precision)
        base = started_from(self.model, tokenizer, self.settings.base_model)
        self.base_name, self.base_revision = published_name(base.name), base.revision
        remember_folder(base.name, base.revision)
        task = get_task(self.task)
        shared = vars(self.settings) | {"base_model": self.base_name, "declared": self.declared}
        counts = {
            "pool_size": len(self.examples.pool) // len(task.parts),
            "test_examples": len(self.examples.test) // len(task.test_parts),
        }
        self.recorded = Recorded(**(shared | counts))
        self.test_set = self._test_set(base)
        self.folder.check_recorded(self.config, self.base_revision, self.recorded.to_dict())
        if resumed is not None:
            self._check_resumed(resumed)
        self._take(resumed.run if resumed is not None else self.run)
        try:
            self._check_steps(steps)
            self._start(resumed)
            self._enter()
        except BaseException:
            self.abandon()
            raise

    def _test_set(self, base: BaseModel) -> TestSet:
        context = min(base.context, self.settings.max_length)
        tokens = [
            tokenize_example(base.tokenizer, each, context, get_single_task(each.task).generates)
            for each in self.examples.pool
        ]
        limits = new_token_limits(self.examples.pool, tokens)
        return TestSet(self.examples.test, base, self.recorded, limits)

    def _enter(self) -> None:
        """Write what the config's runs share, unless somebody else began it otherwise meanwhile."""
        self.folder.remove_leftovers()
        with self._claims.whole_folder():
            self.folder.check_recorded(self.config, self.base_revision, self.recorded.to_dict())
            self.folder.add_examples(self.task, "pool", self.examples.pool)
            self.folder.add_examples(self.task, "test", self.examples.test)
            self.folder.begin_recorded(self.config, self.base_revision, self.name, self.recorded.to_dict())
            self.folder.write_card()

    def _check_resumed(self, resumed: Partial) -> None:
        now = {"config": self.config, "base_revision": self.base_revision} | self.recorded.to_dict()
        then = {"config": resumed.config, "base_revision": resumed.base_revision} | EARLIER_RECORDING | resumed.recorded
        if self.run is not None:
            now, then = now | {"run": self.run}, then | {"run": resumed.run}
        differ = [f"{name}: {then.get(name)!r} then, {now[name]!r} now" for name in now if then.get(name) != now[name]]
        if differ:
            raise SettingsError(f"before the checkpoint the run was recorded otherwise ({'; '.join(differ)})")

    def _take(self, wanted: str | None) -> None:
        """Claim a run by name, or the next number that is free."""
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
            return
        if wanted in there:
            raise SettingsError(f"{self.folder.root} has run {wanted} of {self.config}: name another run, or none")
        raise SettingsError(f"run {wanted} of {self.config} is being recorded by another process")

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
        if off.any():
            at = int(np.argmax(off))
            raise SettingsError(
                f"the model does not start where run {others[0]} of {self.config} did: the loss of test example {at} "
                f"is {mine[at]:.4f}, there {theirs[at]:.4f}. Start from {self.base_name} as it was loaded, with its "
                "tokenizer, or record it as another config"
            )

    def after_update(self, numbers: Sequence[int], rate: float, last: bool = False) -> None:
        """Note an update, and measure if it is time.

        Args:
            numbers: of the pool examples in its batch.
            rate: the learning rate that it used.
            last: whether it is known to be the last.
        """
        if self.failure is not None:
            return
        self.curriculum.append(list(numbers))
        self.rates.append(rate)
        self.measure_if_due(last)

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
        row = run_table(self.config, self.recorded, base, run, columns, hyperparameters)
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
