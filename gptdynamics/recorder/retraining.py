"""Making a recorded run again on other batches, by the recipe of whoever trained it.

A recipe is a function `train(batches)`: it trains a fresh model on these batches and records that, as the first run was
recorded. While it runs here, its recorder writes into a folder of the retraining, and never into the user's.
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
"""Trains on `[steps][batch]`, the places of rows in the pool, and records it."""

_FOLDER: ContextVar[Path | None] = ContextVar("folder of a retraining", default=None)
# Two trainings of one recipe begin with the same losses up to this share.
_START = 0.01


def redirected(out: Path) -> tuple[Path, bool]:
    """Where a recorder writes that was told `out`, and whether that is a retraining."""
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
        fact: the recorded run that the batches are a change of.
        batches: what to train on.
        folder: empty; the recording goes there.

    Returns:
        The one run that was recorded.

    Raises:
        SettingsError: the recipe recorded no run, or another one than it was asked for; the message says what.
    """
    with _into(folder):
        recipe([list(batch) for batch in batches])
    try:
        made = read_dynamics(folder, fact.config, fact.metric)
    except (SettingsError, DataError) as error:
        raise SettingsError(
            f"the recipe recorded no run of {fact.config}: it must train within a recorder of that config, as the "
            f"first run was ({error})"
        ) from error
    if len(made.runs) != 1 or [sorted(batch) for batch in made.curricula[0]] != [sorted(batch) for batch in batches]:
        raise SettingsError(
            f"the recipe made {len(made.runs)} run(s), not one of exactly the {len(batches)} batches that it was "
            "given: train on these batches alone, in their order"
        )
    if made.step.tolist() != fact.step.tolist():
        raise SettingsError(
            "the recipe measures at other steps than the first run: give its recorder the same settings"
        )
    first, before = made.values[0, 0], fact.values[0, 0]
    if (abs(first - before) > _START * (1 + abs(before))).any():
        raise SettingsError(
            f"the recipe does not start where the recorded run did: the first {fact.metric} of a test example is "
            f"{first[0]:.4g}, recorded {before[0]:.4g}. Load the base model anew in every call"
        )
    return made
