"""The linear datamodelling score against scipy, one test example at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from simulator.attribution.datamodelling import datamodelling_score, rank_correlations


def test_a_perfect_simulator_scores_one() -> None:
    truth = np.random.default_rng(0).normal(size=(12, 5))
    found = datamodelling_score(np.exp(truth), truth)
    assert found.value == pytest.approx(1)
    assert (found.low, found.high) == (pytest.approx(1), pytest.approx(1))
    assert datamodelling_score(-truth, truth).value == pytest.approx(-1)


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(1)
    predicted, truth = rng.integers(0, 6, size=(2, 15, 4)).astype(float)
    wanted = [spearmanr(predicted[:, at], truth[:, at]).statistic for at in range(4)]
    np.testing.assert_allclose(rank_correlations(predicted, truth), wanted)
    np.testing.assert_allclose(rank_correlations(predicted[None], truth[None])[0], wanted)


def test_what_never_moves_is_left_out() -> None:
    truth = np.random.default_rng(2).normal(size=(8, 3))
    predicted = truth.copy()
    predicted[:, 1] = 0.5
    found = datamodelling_score(predicted, truth)
    assert found.examples == 2
    assert found.value == pytest.approx(1)
    assert datamodelling_score(np.ones_like(truth), truth).value is None
    assert datamodelling_score(np.full_like(truth, np.nan), truth).value is None


def test_the_interval_of_noise_holds_zero_and_that_of_a_signal_does_not() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(30, 20))
    noise = datamodelling_score(rng.normal(size=truth.shape), truth)
    assert noise.low is not None and noise.low < 0 < noise.high
    signal = datamodelling_score(truth + rng.normal(size=truth.shape), truth)
    assert signal.low is not None and signal.low > 0.3
