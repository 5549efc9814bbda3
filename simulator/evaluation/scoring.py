"""The scores of methods on held-out runs: all-steps MSE and MAE, final-step Spearman, skill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from gptdynamics.dataset import Dynamics
from simulator.baselines import Predictor
from simulator.evaluation.simulated import Simulated
from simulator.model.intervals import Coverage


@dataclass(frozen=True)
class Row:
    """One line of an evaluation; None where a score is undefined.

    Attributes:
        method, model, config, metric, split: what was scored.
        mse, mae: mean over the scored steps of a trajectory, then mean over (run, test example);
            `_std` is the deviation over (run, test example).
        spearman: rank correlation over test examples at the last step, mean over runs; `_std` over runs, None of one.
        skill: 1 - SSE / SSE of the mean curve, over trajectories that move.
        coverage: share of truths inside the 90% band, or None where there is no band.
        runs, examples: how many of each.
        still: trajectories that never move; they are left out of `skill`.
        note: why the method has no scores, or None.
        coverage_uncertainty: standard error of `coverage` by run, or None.
    """

    method: str
    model: str | None
    config: str
    metric: str
    split: str
    mse: float | None
    mse_std: float | None
    mae: float | None
    mae_std: float | None
    spearman: float | None
    spearman_std: float | None
    skill: float | None
    coverage: float | None
    runs: int
    examples: int
    still: int
    note: str | None = None
    coverage_uncertainty: float | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        """The fields of `Scores`."""
        return {each.name: getattr(self, each.name) for each in fields(Scores)}


@dataclass(frozen=True)
class Scores:
    """The fields of `Row` that are computed from predictions and true values."""

    mse: float | None
    mse_std: float | None
    mae: float | None
    mae_std: float | None
    spearman: float | None
    spearman_std: float | None
    skill: float | None
    still: int


def _final_spearman(predicted: np.ndarray, truth: np.ndarray) -> tuple[float | None, float | None]:
    """Mean and deviation over runs of the rank correlation over test examples, `[R, M]` each; one run has none."""
    from scipy.stats import spearmanr

    correlations = [
        float(spearmanr(p, t).statistic)
        for p, t in zip(predicted, truth, strict=True)
        if np.ptp(p) > 0 and np.ptp(t) > 0
    ]
    if len(correlations) < len(truth):
        return None, None
    return float(np.mean(correlations)), float(np.std(correlations)) if len(correlations) > 1 else None


def undefined_scores(truth: np.ndarray, history: int) -> Scores:
    """Only the number of trajectories that never move; arguments as of `score_prediction`."""
    still = np.ptp(truth[..., history:], axis=-1) == 0
    return Scores(None, None, None, None, None, None, None, int(still.sum()))


def score_prediction(predicted: np.ndarray, truth: np.ndarray, mean_curve: np.ndarray, history: int = 1) -> Scores:
    """Score predictions `[R, M, S]` against the truth and the mean curve's predictions, the reference of skill.

    The first `history` values, which any method was given, are not scored. All scores are None where a prediction is
    not finite.
    """
    if not np.isfinite(predicted[..., history:]).all():
        return undefined_scores(truth, history)
    predicted, truth, mean_curve = (array[..., history:].astype(np.float64) for array in (predicted, truth, mean_curve))
    still = np.ptp(truth, axis=-1) == 0
    square = np.square(predicted - truth).mean(-1)
    absolute = np.abs(predicted - truth).mean(-1)
    reference = np.square(mean_curve - truth).mean(-1)[~still].sum()
    spearman, spearman_std = _final_spearman(predicted[..., -1], truth[..., -1])
    return Scores(
        mse=float(square.mean()),
        mse_std=float(square.std()),
        mae=float(absolute.mean()),
        mae_std=float(absolute.std()),
        spearman=spearman,
        spearman_std=spearman_std,
        skill=float(1 - square[~still].sum() / reference) if reference > 0 else None,
        still=int(still.sum()),
    )


@dataclass(frozen=True)
class Method:
    """A method with its prediction `[R, M, S]` of the scored runs, or None and a note that says why.

    `model` is the folder or Hub id it was loaded from; `coverage` is that of its 90% band.
    """

    name: str
    prediction: np.ndarray | None
    model: str | None = None
    coverage: Coverage | None = None
    note: str | None = None

    @classmethod
    def of(cls, predictor: Predictor, runs: Dynamics, history: int, name: str | None = None) -> Method:
        """Predict R held-out runs, under the predictor's name or another.

        Raises:
            NotApplicableError: the runs lack what the method needs.
        """
        coverage = predictor.coverage(runs, history) if isinstance(predictor, Simulated) else None
        return cls(name or predictor.name, predictor.predict(runs), predictor.model, coverage)


def score(
    methods: Sequence[Method], runs: Dynamics, reference: np.ndarray, history: int = 1, split: str = "test"
) -> list[Row]:
    """Score methods on the same runs: a row for each, with `split` as its name of them.

    `reference` `[R, M, S]` is what the mean curve predicts; the first `history` values are not scored.
    """
    rows = []
    for method in methods:
        scores = (
            undefined_scores(runs.values, history)
            if method.prediction is None
            else score_prediction(method.prediction, runs.values, reference, history)
        )
        covered = method.coverage
        rows.append(
            Row(
                method=method.name,
                model=method.model,
                config=runs.config,
                metric=runs.metric,
                split=split,
                coverage=covered.share if covered else None,
                coverage_uncertainty=covered.uncertainty if covered else None,
                runs=len(runs.runs),
                examples=len(runs.test),
                note=method.note,
                **asdict(scores),
            )
        )
    return rows
