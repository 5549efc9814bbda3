"""Real trainings on curricula of one's own of a recorded config: by the user's recipe, in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gptdynamics.cache import Entries
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.reading import is_recorded
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.recorder.retraining import Recipe, retrain
from simulator.use_cases.trial import AXES
from simulator.use_cases.trials import Worked

# What answers a recorded config can give without being trained again.
WITHOUT = "influence, what-if, simulate and evaluate need none"


def check_recipe(fact: Dynamics, recipe: Recipe | None, function: str) -> bool:
    """Whether a recipe makes the runs again; else they are ours to make.

    Raises:
        SettingsError: the runs were recorded, and there is no recipe; or the other way round.
    """
    recorded = is_recorded(fact.source, fact.config)
    if recorded and recipe is None:
        raise SettingsError(
            f"{fact.config} was recorded in a training of your own, which only you can make again: in Python, give "
            f"simulator.{function}(..., recipe=train), see docs/how-to/record-training.md; {WITHOUT}"
        )
    if recipe is not None and not recorded:
        raise SettingsError(f"{fact.config} was collected, and is trained again without a recipe: leave recipe out")
    return recipe is not None


def check_trainable(runs: Dynamics, recipe: Recipe | None, function: str) -> None:
    """Check that runs can be made again, by a recipe or without one.

    Raises:
        SettingsError: as of `check_recipe`.
        DataError: there is no recipe, and texts of their pool were left out.
    """
    if check_recipe(runs, recipe, function):
        return
    for example in runs.pool:
        if example.withheld:
            raise DataError(example.withheld_message)


def retrain_all(
    recipe: Recipe,
    fact: Dynamics,
    curricula: Sequence[Curriculum],
    keep: Path,
    on_progress: Callable[[], None] = lambda: None,
) -> Worked[np.ndarray]:
    """The metric `[M, S]` of a training on each curriculum, at the steps and of the test examples of `fact`.

    Those that `keep` has are not made again: a recipe that was changed needs another folder.

    Raises:
        SettingsError: as of `retrain`.
    """
    entries, results, seconds, done = Entries(keep), [], 0.0, 0
    for batches in curricula:
        key = [AXES, fact.config, fact.metric, fact.base_revision, fact.runs[0], batches]
        arrays = entries.load_arrays(key)
        if arrays is None:
            began = time.process_time()
            with tempfile.TemporaryDirectory(prefix="gptdynamics-retraining-") as folder:
                arrays = {"values": retrain(recipe, fact, batches, Path(folder) / "recorded").values[0]}
            seconds, done = seconds + time.process_time() - began, done + 1
            entries.save_arrays(key, arrays)
        results.append(arrays["values"])
        on_progress()
    return Worked(results, seconds, done)
