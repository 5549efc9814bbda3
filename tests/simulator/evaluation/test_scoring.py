"""The figures of an evaluation agree with loops, and are None where they are undefined."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.evaluation import score_prediction


def ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal values share the mean of their ranks."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


def slow_figures(
    predicted: np.ndarray, truth: np.ndarray, mean_curve: np.ndarray, history: int
) -> dict[str, float | None]:
    runs, tests, steps = truth.shape
    square, absolute, sse, reference, still = [], [], 0.0, 0.0, 0
    for run in range(runs):
        for test in range(tests):
            scored = range(history, steps)
            errors = [predicted[run, test, t] - truth[run, test, t] for t in scored]
            square.append(sum(e * e for e in errors) / len(errors))
            absolute.append(sum(abs(e) for e in errors) / len(errors))
            if len({truth[run, test, t] for t in scored}) == 1:
                still += 1
                continue
            sse += sum(e * e for e in errors)
            reference += sum((mean_curve[run, test, t] - truth[run, test, t]) ** 2 for t in scored)
    spearman = [np.corrcoef(ranks(predicted[run, :, -1]), ranks(truth[run, :, -1]))[0, 1] for run in range(runs)]
    return {
        "mse": np.mean(square),
        "mse_std": np.std(square),
        "mae": np.mean(absolute),
        "mae_std": np.std(absolute),
        "spearman": np.mean(spearman),
        "spearman_std": np.std(spearman) if runs > 1 else None,
        "skill": 1 - sse / reference,
        "still": still,
    }


@given(
    runs=st.integers(1, 3),
    steps=st.integers(3, 7),
    tests=st.integers(3, 6),
    history=st.integers(1, 2),
    still=st.integers(0, 2),
    seed=st.integers(0, 2**31 - 1),
)
def test_score_equals_loops(runs: int, steps: int, tests: int, history: int, still: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth, mean_curve = rng.normal(size=(3, runs, tests, steps + history))
    truth[0, :still] = truth[0, :still, :1]
    predicted[:, 0, -1] = predicted[:, 1, -1]
    found = asdict(score_prediction(predicted, truth, mean_curve, history))
    assert found == pytest.approx(slow_figures(predicted, truth, mean_curve, history))


@pytest.fixture
def curves() -> tuple[np.ndarray, np.ndarray]:
    """True trajectories of 3 runs, 4 test examples, 5 steps, and a mean curve of other runs."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 4, 5)).astype(np.float32), rng.normal(size=(3, 4, 5)).astype(np.float32)


Curves = tuple[np.ndarray, np.ndarray]


def test_a_perfect_prediction_has_no_error_and_skill_one(curves: Curves) -> None:
    truth, mean_curve = curves
    found = score_prediction(truth.copy(), truth, mean_curve, 1)
    assert (found.mse, found.mse_std, found.mae, found.mae_std, found.skill) == (0, 0, 0, 0, 1)
    assert found.spearman == pytest.approx(1)
    assert found.spearman_std == pytest.approx(0)


def test_the_mean_curve_has_skill_zero(curves: Curves) -> None:
    truth, mean_curve = curves
    assert score_prediction(mean_curve, truth, mean_curve, 1).skill == 0


def test_worse_than_the_mean_curve_is_negative_skill(curves: Curves) -> None:
    truth, mean_curve = curves
    found = score_prediction(truth + 2 * (mean_curve - truth), truth, mean_curve, 1)
    assert found.skill == pytest.approx(-3)


def test_given_values_are_not_scored(curves: Curves) -> None:
    truth, mean_curve = curves
    predicted = truth.copy()
    predicted[..., :2] = 1e6
    assert score_prediction(predicted, truth, mean_curve, 2).mse == 0
    assert score_prediction(predicted, truth, mean_curve, 1).mse != 0


def test_trajectories_that_never_move_are_counted_and_left_out_of_skill_only(curves: Curves) -> None:
    truth, mean_curve = curves
    truth[1, 2] = 0.0
    predicted = truth.copy()
    predicted[1, 2] = 5.0
    found = score_prediction(predicted, truth, mean_curve, 1)
    assert found.still == 1
    assert found.skill == 1
    assert found.mse == pytest.approx(25 / 12)


def test_skill_is_undefined_where_nothing_moves(curves: Curves) -> None:
    _, mean_curve = curves
    truth = np.zeros_like(mean_curve)
    found = score_prediction(mean_curve, truth, mean_curve, 1)
    assert (found.skill, found.still) == (None, truth.shape[0] * truth.shape[1])
    assert found.mse is not None


def test_spearman_of_one_test_example_is_undefined(curves: Curves) -> None:
    truth, mean_curve = (array[:, :1] for array in curves)
    found = score_prediction(mean_curve, truth, mean_curve, 1)
    assert (found.spearman, found.spearman_std) == (None, None)
    assert found.skill == 0


def test_one_run_has_no_deviation_between_runs(curves: Curves) -> None:
    truth, mean_curve = (array[:1] for array in curves)
    found = score_prediction(mean_curve, truth, mean_curve, 1)
    assert found.spearman is not None
    assert found.spearman_std is None
    assert found.mse_std is not None


@pytest.mark.parametrize("which", ["predicted", "truth"])
def test_spearman_is_undefined_where_one_run_ends_in_equal_values(curves: Curves, which: str) -> None:
    truth, predicted = curves
    (predicted if which == "predicted" else truth)[1, :, -1] = 0.5
    found = score_prediction(predicted, truth, predicted, 1)
    assert (found.spearman, found.spearman_std) == (None, None)
    assert found.mse is not None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_blew_up_has_no_figures(curves: Curves, value: float) -> None:
    truth, mean_curve = curves
    predicted = mean_curve.copy()
    predicted[2, 1, 3] = value
    truth[0, 0] = 1.0
    found = asdict(score_prediction(predicted, truth, mean_curve, 1))
    assert found.pop("still") == 1
    assert set(found.values()) == {None}


def test_large_but_finite_predictions_do_not_overflow(curves: Curves) -> None:
    truth, mean_curve = curves
    found = score_prediction(np.full_like(truth, 1e30), truth, mean_curve, 1)
    assert found.mse == pytest.approx(1e60)
