"""Tables 11 and 12: scores on test examples, on pool rows, or on both, that no training run showed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import floor

import numpy as np

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.ranges import Range, check_fields
from simulator.baselines import Persistence
from simulator.evaluation.evaluate import EvaluateSettings, Evaluation, trained_here, unique_names
from simulator.evaluation.scoring import Row, score
from simulator.evaluation.simulated import Simulated, load_simulator, simulated_of
from simulator.training import train_simulator

SPLITS = ("test", "test_unseen")


@dataclass(frozen=True)
class Unseen:
    """What is kept from training.

    Attributes:
        tests: share of the test examples, 0 to below 1; the others are trained on, and only these are scored.
        split: `test`, or `test_unseen`: runs on pool rows that no training run showed.
    """

    tests: float = 0.0
    split: str = "test"

    def __post_init__(self) -> None:
        check_fields(self, {"tests": Range(0, 1, below=True)})
        if self.split not in SPLITS:
            raise SettingsError(f"split={self.split!r} must be one of {', '.join(SPLITS)}")

    @property
    def anything(self) -> bool:
        """Whether anything is."""
        return self.tests > 0 or self.split != "test"


def split_tests(count: int, share: float) -> tuple[list[int], list[int]]:
    """Places of the test examples that are trained on, and of those kept from it, evenly among them.

    Neither part has more of a label or of a task than chance gives.
    """
    kept = [at for at in range(count) if floor((at + 1) * share) > floor(at * share)]
    return sorted(set(range(count)) - set(kept)), kept


def some_tests(runs: Dynamics, tests: list[int]) -> Dynamics:
    """Only these test examples."""
    return replace(runs, test=[runs.test[at] for at in tests], values=runs.values[:, :, tests])


def mean_curves(training: Dynamics, runs: Dynamics, seen_tests: list[int], unseen_tests: bool) -> np.ndarray:
    """The reference of skill: mean curves, or for unseen test examples the first value plus the seen ones' mean change.

    Args:
        training: training and validation runs, with all test examples.
        runs: that are predicted, `[R, S, M]`.
        seen_tests: places of the test examples that training runs showed.
        unseen_tests: whether the test examples of `runs` are others.
    """
    if not unseen_tests:
        return np.broadcast_to(training.values.mean(0)[:, seen_tests], runs.values.shape)
    seen = training.values[:, :, seen_tests].mean((0, 2))
    return runs.values[:, :1] + (seen - seen[0])[None, :, None]


def evaluate_unseen(
    settings: EvaluateSettings,
    unseen: Unseen,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score simulators on what training did not show, beside persistence and the mean curve.

    Other baselines know single examples only and are left out.

    Args:
        settings: data and models; without models they are trained here, on the test examples that are not kept back.
        unseen: what is kept back.
        on_phase, on_progress: as in `train_simulator`.

    Raises:
        SettingsError: a model was trained on test examples that should be unseen.
        DataError: there are no such runs, or data are missing or damaged.
    """
    runs = read_dynamics(settings.dataset, settings.config, settings.metric)
    seen, kept = split_tests(len(runs.test), unseen.tests)
    if unseen.tests and not (seen and kept):
        raise SettingsError(f"{settings.config}: {len(runs.test)} test examples cannot be split by {unseen.tests}")
    training, tests = some_tests(runs, seen), kept or seen
    with_others = read_dynamics(settings.dataset, settings.config, settings.metric, unseen=True)
    if unseen.split == "test_unseen" and len(with_others.runs) == len(runs.runs):
        raise SettingsError(f"{settings.config} has no runs on unseen pool rows: collect with --unseen-runs")
    held_out = with_others.split("test_unseen") if unseen.split == "test_unseen" else runs.split("test")
    held_out = some_tests(held_out, tests)
    simulators = [simulated_of(load_simulator(source), source, held_out) for source in settings.models]
    for method in simulators:
        known = int((method.simulator.places(held_out.test) >= 0).sum())
        if kept and known:
            raise SettingsError(f"{method.model} was trained on {known} of the {len(kept)} test examples kept back")
    if not simulators:
        wanted = trained_here(settings, training)
        simulators = [
            Simulated(train_simulator(each, on_phase, on_progress, runs=training).model)
            for each in wanted
            if each.encoder != "index"
        ]
    history = max((method.history for method in simulators), default=1)
    reference = mean_curves(runs.split("train", "validation"), held_out, seen, bool(kept))
    predictions = {"persistence": Persistence().predict(held_out), "mean_curve": reference}
    sources: dict[str, Simulated] = {}
    for name, method in zip(unique_names(simulators), simulators, strict=True):
        predictions[name] = method.predict(held_out)
        sources[name] = method
    rows = []
    for name, predicted in predictions.items():
        covered = sources[name].coverage(held_out, history) if name in sources else None
        rows.append(
            Row(
                method=name,
                model=sources[name].model if name in sources else None,
                config=settings.config,
                metric=settings.metric,
                split=unseen.split,
                coverage=covered.share if covered else None,
                coverage_uncertainty=covered.uncertainty if covered else None,
                runs=len(held_out.runs),
                examples=len(tests),
                **asdict(score(predicted, held_out.values, reference, history)),
            )
        )
    return Evaluation(rows=rows, runs=held_out, predictions=predictions, history=history)
