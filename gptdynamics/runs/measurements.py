"""The metrics measured at the steps of a run, collected while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.curriculum import Curriculum, run_seed
from gptdynamics.errors import DivergedRunError
from gptdynamics.measurement import TestSet
from gptdynamics.runs.precision import forward_precision
from gptdynamics.runs.run import Run, RunTiming

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gptdynamics.configs import RunSettings
    from gptdynamics.dataset.recorded import RecordSettings
    from gptdynamics.runs.gradient_record import GradientRecord
    from gptdynamics.runs.kernel_record import KernelRecord


class Measurements:
    """The metrics of every test example at the steps at which they are due. M test examples.

    Args:
        test_set: what is measured.
        settings: of the run.
        run: its name.
        device: of the model.
        timing: the time spent is added to it.

    Attributes:
        step, generation_step: steps at which the loss, and generated text, were measured.
        values: `[M]` float32 for each measured step, by metric; NaN where an example does not have the metric.
        mixed: context that sets the precision of forward passes.
    """

    def __init__(
        self,
        test_set: TestSet,
        settings: RunSettings | RecordSettings,
        run: str,
        device: torch.device,
        timing: RunTiming,
    ) -> None:
        self.test_set = test_set
        self.settings = settings
        self.run = run
        self.seed = run_seed(settings, run)
        self.mixed = forward_precision(settings.precision, device)
        self.timing = timing
        self.step: list[int] = []
        self.generation_step: list[int] = []
        self.values: dict[str, list[np.ndarray]] = {}

    def restore(self, step: Sequence[int], generation_step: Sequence[int], values: Mapping[str, np.ndarray]) -> None:
        """Continue from earlier measurements: the attributes of the same names, with `values` as in `metrics`."""
        self.step, self.generation_step = list(step), list(generation_step)
        self.values = {name: list(each.T) for name, each in values.items()}

    def due(self, step: int, last: bool = False) -> bool:
        """Whether a measurement is due after `step` updates and has not been made yet."""
        return self._loss_due(step, last) or self._text_due(step, last)

    def _loss_due(self, step: int, last: bool) -> bool:
        return (step % self.settings.eval_every == 0 or last) and step not in self.step[-1:]

    def _text_due(self, step: int, last: bool) -> bool:
        due = self.test_set.generator is not None and (step % self.settings.generate_every == 0 or last)
        return due and step not in self.generation_step[-1:]

    def take(self, model: PreTrainedModel, step: int, last: bool = False) -> None:
        """Make the measurements that are due after `step` updates.

        Args:
            model: in evaluation mode.
            step: number of updates so far.
            last: whether it was the last update; then everything is due.

        Raises:
            DivergedRunError: a value is not finite.
        """
        measured: dict[str, np.ndarray] = {}
        if self._loss_due(step, last):
            with self.timing.timed("loss"), self.mixed:
                measured |= self.test_set.measure(model)
            self.timing.evaluations += 1
            self.step.append(step)
        if self._text_due(step, last):
            with self.timing.timed("generation"), self.mixed:
                measured |= self.test_set.generate(model, [*self.seed, step])
            self.generation_step.append(step)
            if (generator := self.test_set.generator) is not None:
                self.timing.sampled += generator.sampled
                self.timing.tied += generator.tied
        for name, values in measured.items():
            valid = np.isfinite(values) | ~self.test_set.followed[name]
            if not valid.all():
                example = self.test_set.examples[int(np.argmin(valid))].id
                raise DivergedRunError(f"{name} of test example {example} is not finite after {step} updates")
            self.values.setdefault(name, []).append(values)

    def as_run(
        self, curriculum: Curriculum, learning_rate: list[float], record: GradientRecord | KernelRecord | None = None
    ) -> Run:
        """The run that was measured.

        Args:
            curriculum: `[T][batch]` pool ids.
            learning_rate: `[T]` of each update.
            record: its gradient products, if they were recorded.
        """
        return Run(
            name=self.run,
            curriculum=curriculum,
            learning_rate=learning_rate,
            step=self.step,
            generation_step=self.generation_step,
            metrics=self.metrics,
            gradients=record.columns if record else {},
            products=record.products if record else {},
            kernel=record.kernel if record else None,
            timing=self.timing,
        )

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """`[M, measured steps]` float32 by metric."""
        return {name: np.stack(values, axis=-1) for name, values in self.values.items()}
