"""Repeats a recorded training on other batches, by a recipe of its user.

A recipe is a function `train(batches)`: it trains a fresh model on these batches and records that in the same way as
the first run. While it runs here, its recorder writes to a folder of the retraining instead of the user's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset.reading import Dynamics, read_dynamics
from gptdynamics.errors import DataError, SettingsError

Recipe = Callable[[Curriculum], object]
"""Trains on `[steps][batch]`, the indices of rows in the pool, and records it."""

_FOLDER: ContextVar[Path | None] = ContextVar("folder of a retraining", default=None)
# Largest relative difference between the first losses of two trainings of one recipe.
_START = 0.01


def redirected(out: Path) -> tuple[Path, bool]:
    """The folder that a recorder with `out` writes to, and whether it records a retraining."""
    folder = _FOLDER.get()
    return (out, False) if folder is None else (folder, True)


@contextmanager
def _into(folder: Path) -> Iterator[None]:
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def retrain(recipe: Recipe, fact: Dynamics, batches: Curriculum, folder: Path) -> Dynamics:
    """Train on other batches by a recipe.

    Args:
        recipe: see `Recipe`.
        fact: the recorded run whose batches were changed.
        batches: the batches to train on.
        folder: an empty folder for the recording.

    Returns:
        The one run that was recorded.

    Raises:
        SettingsError: the recipe recorded no run, or one that does not fit; the message says why.
    """
    with _into(folder):
        recipe([list(batch) for batch in batches])
    try:
        repeated = read_dynamics(folder, fact.config, fact.metric)
    except (SettingsError, DataError) as error:
        raise SettingsError(
            f"the recipe recorded no run of {fact.config}: it must train within a recorder of that config, as the "
            f"first run was ({error})"
        ) from error
    if len(repeated.runs) != 1 or [sorted(batch) for batch in repeated.curricula[0]] != [
        sorted(batch) for batch in batches
    ]:
        raise SettingsError(
            f"the recipe recorded {len(repeated.runs)} run(s), but not one run with exactly the {len(batches)} given "
            "batches: train on these batches only, in their order"
        )
    if repeated.step.tolist() != fact.step.tolist():
        raise SettingsError(
            "the recipe measures at other steps than the first run: give its recorder the same settings"
        )
    initial, recorded_initial = repeated.values[0, :, 0], fact.values[0, :, 0]
    if (abs(initial - recorded_initial) > _START * (1 + abs(recorded_initial))).any():
        raise SettingsError(
            f"the recipe does not start where the recorded run did: the first {fact.metric} of a test example is "
            f"{initial[0]:.4g}, recorded was {recorded_initial[0]:.4g}. Load the base model anew in every call"
        )
    return repeated
