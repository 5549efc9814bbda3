"""The two scans agree with loops over runs, steps and test examples."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulator.model.recurrence import FilterBank, decayed_sums, markov_scan, optimiser_sums

SIZES = st.integers(1, 4)
SEEDS = st.integers(0, 2**31 - 1)


def slow_scan(alpha: np.ndarray, beta: np.ndarray, history: np.ndarray) -> np.ndarray:
    """phi_t = sum_j alpha_j(c_t) phi_{t-j} + beta(c_t), one number at a time."""
    order, runs, tests, steps = alpha.shape
    phi = np.full((runs, tests, steps + 1), np.nan)
    for run in range(runs):
        for test in range(tests):
            for t in range(steps + 1):
                if t < order:
                    phi[run, test, t] = history[run, test, t]
                    continue
                batch = t - 1
                phi[run, test, t] = beta[run, test, batch]
                for j in range(1, order + 1):
                    phi[run, test, t] += alpha[j - 1, run, test, batch] * phi[run, test, t - j]
    return phi


@given(order=st.integers(1, 3), runs=SIZES, more=st.integers(0, 5), tests=SIZES, seed=SEEDS)
def test_markov_scan_equals_a_loop(order: int, runs: int, more: int, tests: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = order - 1 + more
    alpha = rng.normal(size=(order, runs, tests, steps))
    beta = rng.normal(size=(runs, tests, steps))
    history = rng.normal(size=(runs, tests, order))
    found = markov_scan(*map(torch.from_numpy, (alpha, beta, history))).numpy()
    np.testing.assert_allclose(found, slow_scan(alpha, beta, history), atol=1e-9)


def test_the_given_history_is_kept_and_its_batches_have_no_effect() -> None:
    beta = torch.zeros(1, 1, 4)
    beta[0, 0, :2] = 1e9
    history = torch.tensor([[[1.0, 2.0, 3.0]]])
    found = markov_scan(torch.ones(3, 1, 1, 4), beta, history)
    assert found[0, 0].tolist() == [1, 2, 3, 6, 11]


def slow_sums(inputs: np.ndarray, decays: np.ndarray) -> np.ndarray:
    runs, steps, width = inputs.shape
    out = np.zeros((runs, steps + 1, len(decays), width))
    for run in range(runs):
        for at, rho in enumerate(decays):
            m = np.zeros(width)
            for t in range(1, steps + 1):
                m = rho * m + inputs[run, t - 1]
                out[run, t, at] = m
    return out


@given(runs=SIZES, steps=st.integers(0, 6), width=SIZES, count=st.integers(1, 3), seed=SEEDS)
def test_decayed_sums_equal_a_loop(runs: int, steps: int, width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, decays = rng.normal(size=(runs, steps, width)), rng.uniform(0, 1, size=count)
    found = decayed_sums(torch.from_numpy(inputs), torch.from_numpy(decays)).numpy()
    np.testing.assert_allclose(found, slow_sums(inputs, decays), atol=1e-12)


@given(steps=st.integers(1, 8), seed=SEEDS)
def test_decay_one_sums_everything_and_decay_zero_remembers_only_the_last(steps: int, seed: int) -> None:
    inputs = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, steps, 3)))
    found = decayed_sums(inputs, torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found[:, 1:, 0], inputs)
    torch.testing.assert_close(found[:, 1:, 1], inputs.cumsum(1))
    assert not found[:, 0].any()


@given(runs=SIZES, steps=st.integers(0, 6), width=SIZES, momenta=st.integers(0, 3), count=st.integers(0, 3), seed=SEEDS)
def test_optimiser_sums_equal_a_loop(runs: int, steps: int, width: int, momenta: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, rates = rng.normal(size=(runs, steps, width)), rng.uniform(0, 1, size=(runs, steps))
    b, lam = rng.uniform(0, 0.95, size=momenta), rng.uniform(0, 200, size=count)
    rates[:, ::3] = 0
    found = optimiser_sums(*(torch.from_numpy(each) for each in (inputs, rates, b, lam))).numpy()
    assert found.shape == (runs, steps + 1, momenta * count, width)
    for run, at, of in np.ndindex(runs, momenta, count):
        v, n = np.zeros(width), np.zeros(width)
        assert not found[run, 0, at * count + of].any()
        for t in range(steps):
            rate, most = rates[run, t], (1 + b[at]) / (1 - b[at])
            pull = most * (1 - np.exp(-lam[of] * rate / most)) / rate if rate > 0 else lam[of]
            v = b[at] * v + (1 - b[at]) * (inputs[run, t] - pull * n)
            n = n + rate * v
            np.testing.assert_allclose(found[run, t + 1, at * count + of], n, atol=1e-9)


def test_without_momentum_an_update_leaves_a_share() -> None:
    rates, inputs = torch.tensor([[1.0, 0.5, 0.0, 2.0]]).double(), torch.randn(1, 4, 3).double()
    sums = optimiser_sums(inputs, rates, torch.zeros(1).double(), torch.tensor([3.0]).double())[0, :, 0]
    state = torch.zeros(3).double()
    for step, rate in enumerate(rates[0]):
        state = torch.exp(-3.0 * rate) * state + rate * inputs[0, step]
        torch.testing.assert_close(sums[step + 1], state)


def test_sums_of_an_optimiser_stay_bounded_at_any_curvature() -> None:
    inputs, rates = torch.ones(1, 400, 1).double(), torch.ones(1, 400).double()
    sums = optimiser_sums(inputs, rates, torch.tensor([0.0, 0.5, 0.9, 0.99]).double(), torch.tensor([1e4]).double())
    assert sums.abs().max() <= 1


@given(seed=SEEDS, steps=st.integers(1, 6), decays=st.integers(0, 2), momenta=st.integers(0, 2))
def test_the_sum_of_filtered_inputs_equals_each_filter_of_its_own_input(
    seed: int, steps: int, decays: int, momenta: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    rates = torch.rand(1, steps, generator=random, dtype=torch.float64)
    constants = [torch.rand(count, generator=random, dtype=torch.float64) for count in (decays, 2, momenta, 3)]
    filters = FilterBank(*constants, end=rates.sum() / 2)
    count = decays * 2 + momenta * 3
    inputs = torch.randn(count, 4, steps, generator=random, dtype=torch.float64)
    wanted = sum(
        (filters.states(own.T[None], rates)[0, :, index].T for index, own in enumerate(inputs)),
        torch.zeros(4, steps + 1, dtype=torch.float64),
    )
    torch.testing.assert_close(filters.sum_of_filtered(inputs, rates), wanted)
