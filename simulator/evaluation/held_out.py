"""Which runs and test examples are kept from training, to be scored on (tables 11 and 12)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor

import numpy as np

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.ranges import Range, check_fields

SPLITS = ("test", "test_unseen")


@dataclass(frozen=True)
class Unseen:
    """What is kept from training besides runs.

    Attributes:
        unseen_tests: share of the test examples, 0 to below 1; the others are trained on, and only these are scored.
        split: `test`, or `test_unseen`: runs on pool rows that no training run showed.
    """

    unseen_tests: float = 0.0
    split: str = "test"

    def __post_init__(self) -> None:
        check_fields(self, {"unseen_tests": Range(0, 1, below=True)})
        if self.split not in SPLITS:
            raise SettingsError(f"split={self.split!r} must be one of {', '.join(SPLITS)}")

    @property
    def beyond_runs(self) -> bool:
        """Whether test examples or pool rows are kept from training, and not only runs."""
        return self.unseen_tests > 0 or self.split != "test"


def split_tests(count: int, share: float) -> tuple[list[int], list[int]]:
    """Indices of the test examples that are trained on, and of those kept from training, evenly among them.

    Neither part has more of a label or of a task than chance gives.
    """
    unseen = [index for index in range(count) if floor((index + 1) * share) > floor(index * share)]
    return sorted(set(range(count)) - set(unseen)), unseen


def some_tests(runs: Dynamics, tests: list[int]) -> Dynamics:
    """Only these test examples; all of them are the runs as they are."""
    if tests == list(range(len(runs.test))):
        return runs
    return replace(runs, test=[runs.test[index] for index in tests], values=runs.values[:, tests])


def mean_curves(training: Dynamics, runs: Dynamics, seen_tests: list[int], unseen_tests: bool) -> np.ndarray:
    """The reference of skill: mean curves, or for unseen test examples the first value plus the seen ones' mean change.

    `training` has all test examples, `seen_tests` are indices of those trained on; `runs` are predicted, `[R, M, S]`.
    """
    if not unseen_tests:
        return np.broadcast_to(some_tests(training, seen_tests).values.mean(0), runs.values.shape)
    seen = training.values[:, seen_tests].mean((0, 1))
    return runs.values[..., :1] + (seen - seen[0])


@dataclass(frozen=True)
class HeldOut:
    """R runs with the M test examples that are scored, and the mean curve's predictions `[R, M, S]`."""

    runs: Dynamics
    reference: np.ndarray

    @classmethod
    def of(cls, training: Dynamics, runs: Dynamics, seen: list[int], tests: list[int]) -> HeldOut:
        """Hold out runs; `seen` are indices of the test examples trained on, `tests` those that are scored."""
        scored = some_tests(runs, tests)
        return cls(scored, mean_curves(training, scored, seen, tests != seen))


def hold_out(runs: Dynamics, unseen: Unseen) -> tuple[Dynamics, HeldOut]:
    """The runs to train on, reduced to the test examples that are trained on, and what is scored.

    Args:
        runs: all runs of a config, but for those on unseen pool rows.
        unseen: what is kept from training besides the test runs.

    Raises:
        SettingsError: there are no such runs or test examples.
    """
    seen, others = split_tests(len(runs.test), unseen.unseen_tests)
    if unseen.unseen_tests and not (seen and others):
        raise SettingsError(f"{runs.config}: {len(runs.test)} test examples cannot be split by {unseen.unseen_tests}")
    if unseen.split == "test":
        held_out = runs.split("test")
    else:
        every = read_dynamics(runs.source, runs.config, runs.metric, unseen=True)
        if len(every.runs) == len(runs.runs):
            raise SettingsError(f"{runs.config} has no runs on unseen pool rows: collect with --unseen-runs")
        held_out = every.split("test_unseen")
    return some_tests(runs, seen), HeldOut.of(runs.split("train", "validation"), held_out, seen, others or seen)
