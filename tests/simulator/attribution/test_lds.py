"""The linear datamodelling score against scipy, one test example at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from simulator.attribution.lds import lds, lds_by_step, lds_difference, rank_correlations


def test_a_perfect_simulator_scores_one() -> None:
    truth = np.random.default_rng(0).normal(size=(12, 5))
    found = lds(np.exp(truth), truth)
    assert found.value == pytest.approx(1)
    assert (found.low, found.high) == (pytest.approx(1), pytest.approx(1))
    assert lds(-truth, truth).value == pytest.approx(-1)


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(1)
    predicted, truth = rng.integers(0, 6, size=(2, 15, 4)).astype(float)
    wanted = [spearmanr(predicted[:, at], truth[:, at]).statistic for at in range(4)]
    np.testing.assert_allclose(rank_correlations(predicted, truth), wanted)
    np.testing.assert_allclose(rank_correlations(predicted[None], truth[None])[0], wanted)


def test_of_several_steps_it_is_the_mean_over_those_where_it_is_defined() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(12, 4, 3))
    predicted = truth + rng.normal(size=truth.shape)
    predicted[:, 1, 0] = 0.5
    each = np.stack([rank_correlations(predicted[..., step], truth[..., step]) for step in range(3)])
    found = lds(predicted, truth)
    assert found.value == pytest.approx(np.nanmean(each, axis=0).mean())
    assert found.examples == 4
    assert lds(predicted[..., 1:2], truth[..., 1:2]) == lds(predicted[..., 1], truth[..., 1])


def test_what_never_moves_is_left_out() -> None:
    truth = np.random.default_rng(2).normal(size=(8, 3))
    predicted = truth.copy()
    predicted[:, 1] = 0.5
    found = lds(predicted, truth)
    assert found.examples == 2
    assert found.value == pytest.approx(1)
    assert lds(np.ones_like(truth), truth).value is None
    assert lds(np.full_like(truth, np.nan), truth).value is None


def test_the_interval_of_noise_holds_zero_and_that_of_a_signal_does_not() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(30, 20))
    noise = lds(rng.normal(size=truth.shape), truth)
    assert noise.low is not None and noise.low < 0 < noise.high
    signal = lds(truth + rng.normal(size=truth.shape), truth)
    assert signal.low is not None and signal.low > 0.3


def test_only_retrainings_of_the_same_run_are_ranked_together() -> None:
    rng = np.random.default_rng(4)
    truth, repeated = rng.normal(size=(20, 3)), ["0004"] * 8 + ["0010"] * 12
    predicted = truth + rng.normal(size=truth.shape)
    # What tells the two runs apart must not count.
    found = lds(predicted + 9 * (np.array(repeated) == "0010")[:, None], truth, repeated)
    wanted = [
        spearmanr(predicted[part, at], truth[part, at]).statistic
        for part in (slice(8), slice(8, 20))
        for at in range(3)
    ]
    assert found.value == pytest.approx(np.mean(wanted))
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert found.examples == 3


def test_each_step_is_scored_by_itself() -> None:
    rng = np.random.default_rng(5)
    truth, predicted = rng.normal(size=(2, 10, 4, 3))
    truth[..., 0] = truth[0, 0, 0]
    found = lds_by_step(predicted, truth)
    assert found[0].value is None
    assert found[1:] == [lds(predicted[..., step], truth[..., step]) for step in (1, 2)]


def test_a_difference_is_of_the_same_resamples() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(24, 10))
    noisy = truth + 2 * rng.normal(size=truth.shape)
    better = noisy - 0.3 * (noisy - truth)
    found = lds_difference(better, noisy, truth)
    one, other = lds(better, truth), lds(noisy, truth)
    assert one.value is not None and other.value is not None
    assert found.value == pytest.approx(one.value - other.value)
    # The intervals of the two overlap, that of their difference is on one side of zero.
    assert one.low is not None and other.high is not None and one.low < other.high
    assert found.low is not None and found.low > 0
    assert lds_difference(noisy, noisy, truth).high == pytest.approx(0)
    # A test example that one of them says nothing of is left out of both.
    still = noisy.copy()
    still[:, 2] = 1
    assert lds_difference(better, still, truth).examples == 9
