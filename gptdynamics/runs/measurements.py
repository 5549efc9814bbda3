"""What is measured of a run at its steps, gathered while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from gptdynamics.errors import DivergedRunError
from gptdynamics.measurement import TestSet
from gptdynamics.runs.run import RunTiming

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Measurements:
    """The metrics of every test example at the steps at which they are wanted. M test examples.

    Args:
        test_set: what is measured.
        eval_every: updates between measurements of loss and accuracy.
        generate_every: updates between measurements of sampled text: BLEU, ROUGE-L and a task's own metrics.
        seed: of the run; a sampled text adds the step and its example's id.
        mixed: the precision that passes are made in.
        timing: where the time is noted.

    Attributes:
        step, generation_step: at which loss, and text, were measured.
        values: `[M]` float32 for each measured step, by metric; NaN where a metric is not followed for an example.
    """

    def __init__(
        self,
        test_set: TestSet,
        eval_every: int,
        generate_every: int,
        seed: Sequence[int],
        mixed: AbstractContextManager[Any],
        timing: RunTiming,
    ) -> None:
        self.test_set = test_set
        self.eval_every, self.generate_every = eval_every, generate_every
        self.seed = list(seed)
        self.mixed = mixed
        self.timing = timing
        self.step: list[int] = []
        self.generation_step: list[int] = []
        self.values: dict[str, list[np.ndarray]] = {}

    def due(self, done: int, last: bool = False) -> bool:
        """Whether anything is to be measured after `done` updates, and has not been yet."""
        return self._loss_due(done, last) or self._text_due(done, last)

    def _loss_due(self, done: int, last: bool) -> bool:
        return (done % self.eval_every == 0 or last) and done not in self.step[-1:]

    def _text_due(self, done: int, last: bool) -> bool:
        wanted = self.test_set.generator is not None and (done % self.generate_every == 0 or last)
        return wanted and done not in self.generation_step[-1:]

    def take(self, model: PreTrainedModel, done: int, last: bool = False) -> None:
        """Measure what is due after `done` updates.

        Args:
            model: in evaluation mode.
            done: updates so far.
            last: whether there will be no more; then everything is due.

        Raises:
            DivergedRunError: a value is not finite.
        """
        found: dict[str, np.ndarray] = {}
        if self._loss_due(done, last):
            with self.timing.timed("loss"), self.mixed:
                found |= self.test_set.measure(model)
            self.timing.evaluations += 1
            self.step.append(done)
        if self._text_due(done, last):
            with self.timing.timed("generation"), self.mixed:
                found |= self.test_set.generate(model, [*self.seed, done])
            self.generation_step.append(done)
            if (generator := self.test_set.generator) is not None:
                self.timing.sampled += generator.sampled
                self.timing.tied += generator.tied
        for name, value in found.items():
            sound = np.isfinite(value) | ~self.test_set.followed[name]
            if not sound.all():
                bad = self.test_set.examples[int(np.argmin(sound))].id
                raise DivergedRunError(f"{name} of test example {bad} is not finite after {done} updates")
            self.values.setdefault(name, []).append(value)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """`[measured steps, M]` float32 by metric."""
        return {name: np.stack(values) for name, values in self.values.items()}
