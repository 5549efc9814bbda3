"""Tangent dynamics against the formulas as a loop, and what they do for examples, changes and errors of runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum
from simulator.attribution import leave_out, visit_derivatives
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import visit_shares
from simulator.model.dynamics import SimulationInputs
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.tangent_dynamics import (
    GROUPINGS,
    OWN_FILTERS,
    PARTS,
    TangentDynamics,
    group_kernels,
    kernel_parts,
    kernel_patterns,
)
from simulator.training.reference_kernels import parts_as_fitted

POOL, TESTS, STEPS = 7, 4, 6
RUNS = 3
MakeModel = Callable[..., GPTfluenceSimulator]
MakeConfig = Callable[..., GPTfluenceConfig]


@pytest.fixture
def model(make_config: MakeConfig, make_model: MakeModel) -> GPTfluenceSimulator:
    config = make_config("tangent", grouping="base_early_late", encoder_width=POOL, fitted_runs=RUNS, own_patterns=2)
    return make_model(config)


def with_own_responses(kernels: np.ndarray, shares: np.ndarray, responses: np.ndarray, seen: list[int]) -> np.ndarray:
    """Kernels and, behind them, what a row is to each test example through each combination: `[G + J, N, M]`."""
    own = np.zeros((OWN_FILTERS, POOL, len(seen)))
    for combination in range(OWN_FILTERS):
        for row in range(POOL):
            for test, place in enumerate(seen):
                if place >= 0:
                    own[combination, row, test] = sum(shares[row] * responses[place, :, combination])
    return np.concatenate([kernels, own])


def slow_effects(
    dynamics: TangentDynamics, weights: np.ndarray, curriculum: Curriculum, rates: list[float], kernels: np.ndarray
) -> np.ndarray:
    """The filters as loops over steps, test examples, groups and time constants: `[M, T + 1]`."""
    b = {name: value.double().numpy() for name, value in dynamics.named_buffers()}
    effects = np.zeros((kernels.shape[2], len(curriculum) + 1))
    for test in range(kernels.shape[2]):
        for group, kernel in enumerate(kernels[:, :, test]):
            place = 0
            for rho in b["decays"]:
                for kappa in b["fade_rates"]:
                    state = tau = 0.0
                    for t, batch in enumerate(curriculum, start=1):
                        if batch:
                            share = rates[t - 1] / float(b["reference_rate"])
                            x = np.mean([kernel[i] for i in batch])
                            state = rho * state + math.exp(-kappa * min(tau, b["tau"][-1])) * share * x
                            tau += share
                        effects[test, t] += weights[group, place] * state
                    place += 1
            for momentum in b["momenta"]:
                for curvature in b["curvatures"]:
                    speed = state = 0.0
                    for t, batch in enumerate(curriculum, start=1):
                        if batch:
                            share = rates[t - 1] / float(b["reference_rate"])
                            most = (1 + momentum) / (1 - momentum)
                            left = math.exp(-curvature * share / most)
                            pull = most * (1 - left) / share if share else curvature
                            x = np.mean([kernel[i] for i in batch])
                            speed = momentum * speed + (1 - momentum) * (x - pull * state)
                            state += share * speed
                        effects[test, t] += weights[group, place] * state
                    place += 1
    return effects


CURRICULA: list[Curriculum] = [
    [[0, 1], [2, 3], [4, 5], [6, 0], [1, 2], [3, 4]],
    [[0, 1], [], [4, 5], [6], [], [3, 4, 5]],
    [[], [2, 3], [2, 2], [6, 0], [1, 2], []],
]


@pytest.mark.parametrize("rates", [[1e-3] * STEPS, [1e-3, 9e-4, 7e-4, 5e-4, 2e-4, 0.0]])
def test_effects_equal_the_formulas(model: GPTfluenceSimulator, rates: list[float]) -> None:
    seen = [0, 1, -1, 3]
    dynamics, examples = model.dynamics, replace(model.encode(), seen=torch.tensor(seen))
    buffers = {name: value.double().numpy() for name, value in dynamics.named_buffers()}
    kernels, shares, filters = buffers["kernels"], buffers["pool_shares"], buffers["own_filters"]
    every = with_own_responses(kernels, shares, buffers["own_responses"], seen)
    other = [rate * factor for rate, factor in zip(rates, (1, 0.5, 2, 1, 3, 1), strict=True)]
    for given_rates in ([rates], [rates, other, rates]):
        inputs = SimulationInputs(visit_shares(CURRICULA, range(POOL)), torch.tensor(given_rates), examples)
        computed = dynamics.effects(inputs)
        last = dynamics.last_effects_without_runs(inputs)
        assert last.shape == (RUNS, len(CURRICULA), TESTS)
        for run, curriculum in enumerate(CURRICULA):
            own = given_rates[run if len(given_rates) > 1 else 0]
            wanted = slow_effects(dynamics, np.concatenate([buffers["weights"], filters]), curriculum, own, every)
            np.testing.assert_allclose(computed[run], wanted, rtol=1e-4, atol=1e-4)
            for fit, weights in enumerate(buffers["weights_without"]):
                without = with_own_responses(kernels, shares, buffers["own_responses_without"][fit], seen)
                wanted = slow_effects(dynamics, np.concatenate([weights, filters]), curriculum, own, without)
                np.testing.assert_allclose(last[fit, run], wanted[:, -1], rtol=1e-4, atol=1e-4)


def test_one_run_from_its_factors_is_the_run_itself(model: GPTfluenceSimulator) -> None:
    initial = torch.full((1, TESTS, 1), 1.0)
    for curriculum in CURRICULA:
        shares = visit_shares([curriculum], range(POOL))
        inputs = SimulationInputs(shares, torch.tensor([model.config.learning_rate]), model.encode(), initial)
        factors = torch.einsum("tn,gnm->gmt", shares[0], model.dynamics.input_factors(inputs.examples))
        torch.testing.assert_close(
            model.dynamics.from_factors(factors, inputs), model.dynamics.trajectories(inputs)[0], rtol=1e-4, atol=1e-4
        )


@given(pool=st.integers(1, 30), tests=st.integers(1, 40), new=st.booleans(), seed=st.integers(0, 2**31 - 1))
def test_parts_of_kernels_are_their_patterns_and_add_up(pool: int, tests: int, new: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(2, pool, tests)) @ np.diag(rng.uniform(0, 1, tests))
    kernels = torch.from_numpy(kernel)
    fitted = kernel_parts(kernels, kernel_patterns(kernels)[0], torch.arange(pool))
    for group in range(2):
        rows, sizes, columns = np.linalg.svd(kernel[group], full_matrices=False)
        most = min(16, min(pool, tests) // 4)
        for part, (first, end) in enumerate(((0, 1), (1, 4), (4, 16))):
            kept = slice(first, min(end, most))
            np.testing.assert_allclose(
                fitted[2 * part + group], rows[:, kept] * sizes[kept] @ columns[kept], rtol=0, atol=1e-8
            )
    torch.testing.assert_close(fitted.unflatten(0, (PARTS, 2)).sum(0), kernels)
    # Examples that were trained on have the same parts beside others, and so does a copy of a row.
    order = torch.from_numpy(rng.permutation(pool + new))
    wider = torch.cat([kernels, kernels[:, :1]], 1)[:, : pool + new][:, order]
    own, copy = order.argsort()[:pool], order.argsort()[-1]
    others = torch.cat([kernels, torch.from_numpy(rng.normal(size=(2, pool, 3)))], 2)
    others = torch.cat([others, others[:, :1]], 1)[:, : pool + new][:, order]
    torch.testing.assert_close(others[..., :tests], wider)
    parts = parts_as_fitted(others, fitted, own, torch.arange(tests))
    torch.testing.assert_close(parts[:, own][..., :tests], fitted, rtol=0, atol=1e-7)
    if new:
        torch.testing.assert_close(parts[:, copy], parts[:, own[0]], rtol=0, atol=1e-7)


@given(
    checkpoints=st.integers(1, 5),
    scaling=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**31 - 1),
    few=st.booleans(),
)
def test_groups_are_means_of_centred_and_scaled_kernels(checkpoints: int, scaling: float, seed: int, few: bool) -> None:
    rng = np.random.default_rng(seed)
    products = rng.normal(size=(checkpoints, POOL, TESTS)) + rng.normal(size=(checkpoints, 1, TESTS))
    products[:, :, 0] = 3.0  # moved by nothing
    progress = np.arange(checkpoints) / checkpoints
    own = np.arange(4) if few else np.arange(POOL)
    for grouping, ranges in GROUPINGS.items():
        groups = [[at for at in range(checkpoints) if low <= progress[at] <= high] for low, high in ranges]
        arguments = torch.from_numpy(products), torch.from_numpy(progress), grouping, scaling
        if not all(groups):
            with pytest.raises(ValueError, match="needs kernels at other steps"):
                group_kernels(*arguments)
            continue
        grouped = group_kernels(*arguments, own=torch.from_numpy(own) if few else None)
        for number, group in enumerate(groups):
            for test in range(TESTS):
                wanted = np.zeros(POOL)
                for at in group:
                    column = products[at, :, test]
                    centred = column - column[own].mean()
                    size = np.sqrt(np.mean(centred[own] ** 2))
                    wanted += (centred / size**scaling if test else centred) / len(group)
                np.testing.assert_allclose(grouped[number, :, test], wanted, atol=1e-10)


def test_saved_and_loaded_it_predicts_the_same(model: GPTfluenceSimulator, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = GPTfluenceSimulator.from_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 2**15
    torch.testing.assert_close(loaded.simulate(CURRICULA[0]), model.simulate(CURRICULA[0]), rtol=0, atol=0)
    assert loaded.config.grouping == "base_early_late" and loaded.pool_vectors.shape == (POOL, 0)
    assert loaded.config.own_patterns == 2


def test_changes_and_derivatives_agree(model: GPTfluenceSimulator) -> None:
    run = model.what_if(CURRICULA[1])
    effects = leave_out(run, [0, 4])
    without = model.what_if([[1], [], [4, 5], [6], [], [3, 4, 5]])
    torch.testing.assert_close(effects.final[0], run.simulate()[:, -1] - without.simulate()[:, -1])
    derivatives = visit_derivatives(run)
    small = 1e-2
    moved = run.reweigh({4: 1 + small}, [3]).simulate()[:, -1] - run.reweigh({4: 1 - small}, [3]).simulate()[:, -1]
    place = derivatives.pool_ids.index(4)
    torch.testing.assert_close(derivatives.final[place], moved / (2 * small), rtol=2e-2, atol=1e-3)
