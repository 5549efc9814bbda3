"""Finished trials on disk, so that a long command goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gptdynamics.errors import DataError
from gptdynamics.runs import Run
from gptdynamics.tensor_files import read_tensors, write_tensors
from simulator.use_cases.trial import Trial

if TYPE_CHECKING:
    from gptdynamics.runs import BenchContents

_NAME = "run"
_STEPS = ("step", "generation_step", "learning_rate")


class KeptRuns:
    """Runs of trials, each in a file named for everything that it depends on.

    Args:
        folder: of the files.
        contents: of the trials' bench.
        base_revision: of the base model's weights.
    """

    def __init__(self, folder: Path, contents: BenchContents, base_revision: str) -> None:
        self.folder = folder
        texts = [(each.id, each.prompt, each.target, each.references) for each in (*contents.pool, *contents.test)]
        self._contents = [contents.settings.to_dict(), base_revision, texts, len(contents.pool), contents.generate]

    def path(self, trial: Trial) -> Path:
        """Where the run of a trial is, or would be."""
        content = json.dumps([self._contents, asdict(trial)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.safetensors"

    def load(self, trial: Trial) -> Run | None:
        """The run of a trial; None if it was not kept or is damaged."""
        path = self.path(trial)
        if not path.exists():
            return None
        try:
            arrays, _ = read_tensors(path, _NAME)
            step, generation_step, rates = (arrays.pop(name).tolist() for name in _STEPS)
        except (DataError, KeyError):
            return None
        return Run(trial.run, trial.curriculum, rates, step, generation_step, arrays)

    def save(self, trial: Trial, run: Run) -> None:
        """Keep the metrics of a run.

        Raises:
            DataError: the file cannot be written.
        """
        arrays = {
            "step": np.array(run.step, dtype=np.int64),
            "generation_step": np.array(run.generation_step, dtype=np.int64),
            "learning_rate": np.array(run.learning_rate, dtype=np.float64),
            **run.metrics,
        }
        write_tensors(self.path(trial), arrays, {}, _NAME)
