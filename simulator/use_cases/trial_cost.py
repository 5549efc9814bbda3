"""What trainings would cost, from a few updates and one measurement timed here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from gptdynamics.curriculum import Curriculum
from gptdynamics.runs import Bench, BenchContents
from simulator.use_cases.trial import Trial

UPDATES = 10
MEASURED = 100


@dataclass(frozen=True)
class TrialCost:
    """Processor seconds.

    Attributes:
        opening: of opening a bench.
        update: of one.
        measurement: of one test example, once.
    """

    opening: float
    update: float
    measurement: float

    def training(self, updates: int, measurements: int, test_examples: int) -> float:
        """Of one training."""
        return updates * self.update + measurements * test_examples * self.measurement


def time_trials(contents: BenchContents, curriculum: Curriculum) -> TrialCost:
    """Make a few updates and two measurements of a few test examples.

    Args:
        contents: of the trainings' bench.
        curriculum: like theirs; its first updates are made.

    Raises:
        GPTDynamicsError: the base model cannot be had, or the training diverged.
    """
    every = max(1, len(contents.test) // MEASURED)
    few = replace(
        contents,
        settings=replace(contents.settings, eval_every=10**6),
        test=contents.test[::every],
        generate=False,
    )
    began = time.process_time()
    bench = Bench(few)
    opening = time.process_time() - began
    run = Trial(curriculum[:UPDATES]).do(bench)
    return TrialCost(
        opening=opening,
        update=run.timing.update / len(run.curriculum),
        measurement=run.timing.loss / run.timing.evaluations / len(few.test),
    )
