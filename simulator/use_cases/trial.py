"""One real training on a chosen curriculum: how it is made, stored and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.cache import Entries
from gptdynamics.curriculum import Curriculum
from gptdynamics.runs import Bench, BenchContents, Run

# What is timed: so many updates, and one measurement of about so many test examples.
UPDATES = 10
MEASURED = 100
# Of the arrays that are kept, as a part of their keys: what has others is not taken.
AXES = "test examples, steps"
_STEPS = {"step": np.int64, "generation_step": np.int64, "learning_rate": np.float64}


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        curriculum: `[steps][batch]` pool ids.
        run: a run's name, which seeds everything random but the curriculum.
        targets: by pool id, targets that replace the pool's.
    """

    curriculum: Curriculum
    run: str = "0000"
    targets: Mapping[int, str] = field(default_factory=dict)

    def do(self, bench: Bench) -> Run:
        """Train and measure.

        Raises:
            DivergedRunError: a loss is not finite.
        """
        return bench.run(self.run, curriculum=self.curriculum, targets=self.targets)


class KeptRuns:
    """Finished trials in a folder, each in a file named by a hash of everything that it depends on."""

    def __init__(self, folder: Path, contents: BenchContents, base_revision: str) -> None:
        self._entries = Entries(folder)
        texts = [(each.id, each.prompt, each.target, each.references) for each in (*contents.pool, *contents.test)]
        self._contents = [contents.settings.to_dict(), base_revision, texts, len(contents.pool), contents.generate]

    def path(self, trial: Trial) -> Path:
        """Where the run of a trial is, or would be."""
        return self._entries.path(self._key(trial))

    def load(self, trial: Trial) -> Run | None:
        """The run of a trial; None if it was not kept or is damaged."""
        arrays = self._entries.load_arrays(self._key(trial))
        if arrays is None:
            return None
        step, generation_step, rates = (arrays.pop(name).tolist() for name in _STEPS)
        return Run(trial.run, trial.curriculum, rates, step, generation_step, arrays)

    def save(self, trial: Trial, run: Run) -> None:
        """Keep the metrics of a run.

        Raises:
            DataError: the file cannot be written.
        """
        arrays = {name: np.array(getattr(run, name), dtype=kind) for name, kind in _STEPS.items()} | run.metrics
        self._entries.save_arrays(self._key(trial), arrays)

    def _key(self, trial: Trial) -> Any:
        return [AXES, self._contents, asdict(trial)]


@dataclass(frozen=True)
class TrialCost:
    """Processor seconds of opening a bench, of one update, and of measuring one test example once."""

    opening: float
    update: float
    measurement: float

    def training(self, updates: int, measurements: int, test_examples: int) -> float:
        """Processor seconds of one training."""
        return updates * self.update + measurements * test_examples * self.measurement


def time_trials(contents: BenchContents, curriculum: Curriculum, device: str = "cpu") -> TrialCost:
    """Time a few updates and two measurements of a few test examples.

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
    bench = Bench(few, device)
    opening = time.process_time() - began
    # The first update and the first measurement of a process take longer than all others.
    Trial(curriculum[:1]).do(bench)
    began, clock = time.process_time(), time.perf_counter()
    run = Trial(curriculum[:UPDATES]).do(bench)
    # The parts of a run are timed by the clock, and other processes may have had most of that time.
    share = (time.process_time() - began) / (time.perf_counter() - clock)
    return TrialCost(
        opening=opening,
        update=share * run.timing.update / len(run.curriculum),
        measurement=share * run.timing.loss / run.timing.evaluations / len(few.test),
    )
