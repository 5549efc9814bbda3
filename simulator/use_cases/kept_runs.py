"""Finished trials in an output folder, so that a long command goes on where it was interrupted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptdynamics.cache import Entries
from gptdynamics.runs import Run
from simulator.use_cases.trial import Trial

if TYPE_CHECKING:
    from gptdynamics.runs import BenchContents

_STEPS = {"step": np.int64, "generation_step": np.int64, "learning_rate": np.float64}


class KeptRuns:
    """Runs of trials, each in a file named for everything that it depends on.

    Args:
        folder: of the files.
        contents: of the trials' bench.
        base_revision: of the base model's weights.
    """

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
        return [self._contents, asdict(trial)]
