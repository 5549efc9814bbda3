"""Responses of single test examples to what shared coefficients leave over: the closed form equals refitting, and they
are kept where they help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum, linear_decay
from simulator.model.configuration_gptfluence import scale_of
from simulator.model.curricula import Members
from simulator.model.tangent_dynamics import OWN_FILTERS, OWN_PATTERNS, kernel_patterns, pool_shares
from simulator.training.memory_states import FEW, likeness
from simulator.training.own_responses import NONE, OWN_RIDGES, OwnStates, pattern_states, principal_filters
from simulator.training.reference_kernels import ReferenceKernels, fitted_kernels, shares_as_fitted
from simulator.training.tangent_choice import Tried, choose_own
from simulator.training.tangent_features import FittedRuns, Regression, filter_responses, filtered_kernels
from simulator.training.tangent_fit import fit_tangent

POOL, TESTS, STEPS, RUNS = 20, 16, 10, 9
RATES = np.array(linear_decay(1e-3, STEPS))
MakeCurricula = Callable[..., list[Curriculum]]


def references(seed: int) -> list[ReferenceKernels]:
    products = np.random.default_rng(seed).normal(size=(4, POOL, TESTS))
    return [ReferenceKernels("0000", np.array([0, 3, 5, 8]), STEPS, products)]


def fitted_runs(curricula: list[Curriculum], values: np.ndarray) -> FittedRuns:
    visits = Members.between(curricula, range(POOL), range(STEPS + 1))
    return FittedRuns(visits, RATES, np.arange(STEPS + 1), values, scale_of("bleu"), range(POOL))


def own_values(curricula: list[Curriculum], factors: np.ndarray) -> np.ndarray:
    """A mean curve, and sums of what batches hold of `[N, M]` factors: `[R, M, T + 1]`."""
    values = np.full((len(curricula), factors.shape[1], STEPS + 1), 30.0)
    for run, curriculum in enumerate(curricula):
        for t, batch in enumerate(curriculum, start=1):
            values[run, :, t] = values[run, :, t - 1] + RATES[t - 1] / RATES[0] * factors[batch].mean(0)
    return values


@pytest.fixture
def fit(make_curricula: MakeCurricula) -> tuple[OwnStates, Regression, FittedRuns]:
    rng = np.random.default_rng(0)
    kernels = fitted_kernels(references(0), "all", 1.0)
    shares = pool_shares(kernels)
    curricula = make_curricula(0, RUNS, STEPS, POOL)
    factors = kernels.sum(0).numpy() + shares.numpy() @ rng.normal(size=(shares.size(1), TESTS))
    values = own_values(curricula, factors)
    runs = fitted_runs(curricula, values + rng.normal(size=values.shape))
    responses = filter_responses(runs, FEW)
    regression = Regression.of(filtered_kernels(runs, kernels, responses), runs.latent)
    states = pattern_states(runs, shares, principal_filters(responses[0]), responses)
    return OwnStates(states, runs.latent, likeness(rng.normal(size=(TESTS, 3)))), regression, runs


def test_fits_without_a_run_equal_refitting(fit: tuple[OwnStates, Regression, FittedRuns]) -> None:
    own, regression, _ = fit
    every = np.arange(RUNS)
    without = own.without_each_run(regression, 0.1, OWN_RIDGES)
    effects = own.left_out_effects(without)
    shared = regression.weights_without_runs((0.1,))[:, 0]
    for run in every:
        others = np.flatnonzero(every != run)
        explained = np.stack([regression.effects(each, shared[run][None])[0] for each in others])
        for place, ridge in enumerate(OWN_RIDGES):
            responses = own.responses(explained, others, np.arange(TESTS), ridge)
            np.testing.assert_allclose(without[run, place], responses, rtol=1e-4, atol=1e-5)
            centred = own.states[run] - own.states[others].mean(0)
            np.testing.assert_allclose(effects[place, run], (centred @ responses).T, rtol=1e-3, atol=1e-4)
    assert not without[:, -1].any()


def test_states_are_filtered_shares_of_batches(fit: tuple[OwnStates, Regression, FittedRuns]) -> None:
    own, _, runs = fit
    shares = pool_shares(fitted_kernels(references(0), "all", 1.0)).double().numpy()
    responses = filter_responses(runs, FEW)
    filters = principal_filters(responses[0])
    for run in range(RUNS):
        batches = runs.visits.take([run]).spread(POOL)[0].double().numpy()
        for pattern in range(shares.shape[1]):
            held = np.zeros((OWN_FILTERS, STEPS + 1))
            for t, batch in enumerate(batches):
                held += filters @ responses[run][:, :, t].numpy().T * (batch @ shares[:, pattern])
            np.testing.assert_allclose(own.states[run, :, pattern * OWN_FILTERS :][:, :OWN_FILTERS], held.T, atol=1e-8)


@pytest.mark.parametrize(("has_own", "runs"), [(True, RUNS), (False, RUNS), (True, 4)])
def test_they_are_kept_where_they_help(make_curricula: MakeCurricula, has_own: bool, runs: int) -> None:
    rng = np.random.default_rng(1)
    kernels = fitted_kernels(references(1), "all", 1.0).sum(0)
    patterns = pool_shares(kernels[None]).numpy()
    factors = 0.5 * kernels.numpy() + has_own * patterns @ rng.normal(0, 3, (patterns.shape[1], TESTS))
    curricula = make_curricula(1, runs, STEPS, POOL)
    values = own_values(curricula, factors)
    noisy = fitted_runs(curricula, values + rng.normal(0, 0.05, values.shape))
    chosen = fit_tangent(noisy, references(1), np.arange(runs) == 0)
    arrays = chosen.arrays
    kept = has_own and runs == RUNS
    assert np.isfinite(chosen.choice.own_ridge) == kept
    assert arrays["own_responses"].shape == ((TESTS, 4, OWN_FILTERS) if kept else (TESTS, 0, 0))
    assert arrays["own_responses_without"].shape[0] == (runs if kept else 0)
    if kept:
        without = replace(chosen.choice, own_ridge=NONE)
        assert chosen.error < 0.7 * dict(chosen.tried)[without]


def test_patterns_that_explain_nothing_are_not_responded_to() -> None:
    rng = np.random.default_rng(3)
    of_one = torch.from_numpy(np.outer(rng.normal(size=POOL), rng.normal(size=TESTS)))[None]
    shares = pool_shares(of_one)
    assert shares.shape == (POOL, 4) and not shares[:, 1:].any()
    torch.testing.assert_close(shares[:, 0].square().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert not pool_shares(torch.zeros(1, POOL, TESTS)).any()


def test_a_penalty_is_chosen_that_predicts_runs_left_out_no_worse_than_none_does() -> None:
    errors = np.array([[1.3, 1.31], [0.9, 0.9], [0.95, 0.97], [1.0, 1.0]])
    assert choose_own(Tried(errors, np.array([0.9, 0.4, 0.5, 0.1]))) == 2
    assert choose_own(Tried(errors, None)) == 2
    # A standard error above the last is no worse.
    scores = np.array([0.9, 0.5, 0.1])
    assert choose_own(Tried(np.array([[1.3, 1.31], [1.0, 1.04], [1.0, 1.0]]), scores)) == 1
    assert choose_own(Tried(np.array([[1.3, 1.31], [1.04, 1.04], [1.0, 1.0]]), scores)) == 2
    assert choose_own(Tried(errors + np.array([[0], [1], [1], [0]]), np.array([0.9, 0.9, 0.9, 0.1]))) == 3


@given(pool=st.integers(4, 30), tests=st.integers(4, 40), copies=st.integers(0, 3), seed=st.integers(0, 2**31 - 1))
def test_shares_are_of_the_first_patterns_and_a_copy_of_a_row_has_the_same(
    pool: int, tests: int, copies: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kernels = torch.from_numpy(rng.normal(size=(2, pool, tests)))
    shares = pool_shares(kernels)
    every = kernel_patterns(kernels.sum(0, keepdim=True))[0][0]
    assert shares.shape == (pool, min(OWN_PATTERNS, min(pool, tests) // 4))
    torch.testing.assert_close(shares, every[:, : shares.size(1)])
    wider = torch.cat([kernels, kernels[:, :copies]], 1)
    order = torch.from_numpy(rng.permutation(wider.size(1)))
    own = order.argsort()[:pool]
    given_shares = shares_as_fitted(wider[:, order], kernels, shares, own, torch.arange(tests))
    torch.testing.assert_close(given_shares, torch.cat([shares, shares[:copies]])[order], rtol=1e-6, atol=1e-8)
