"""The methods that simulators are compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from simulator.baselines import MeanCurve, Persistence, Predictor, SimfluenceLinear, simfluence
from simulator.configuration_gptfluence import GPTfluenceConfig
from simulator.markov_dynamics import MarkovDynamics
from simulator.modeling_gptfluence import visit_shares

POOL, TESTS, STEPS, BATCH = 10, 3, 8, 2
MakeDynamics = Callable[..., Dynamics]
MakeCurricula = Callable[..., list[Curriculum]]


def free_running(multiply: np.ndarray, add: np.ndarray, curricula: list[Curriculum], first: np.ndarray) -> np.ndarray:
    """Eq. 3 as a loop: phi_t = mean of the batch's multiply * phi_{t-1} + mean of its add; `[R, T + 1, M]`."""
    values = np.zeros((len(curricula), len(curricula[0]) + 1, len(first)))
    values[:, 0] = first
    for run, curriculum in enumerate(curricula):
        for t, batch in enumerate(curriculum, start=1):
            values[run, t] = multiply[batch].mean(0) * values[run, t - 1] + add[batch].mean(0)
    return values


@pytest.fixture
def truth() -> tuple[np.ndarray, np.ndarray]:
    """Multiplicative and additive factors `[N, M]`."""
    rng = np.random.default_rng(1)
    return 0.95 + 0.1 * rng.uniform(-1, 1, size=(POOL, TESTS)), 0.2 * rng.uniform(-1, 1, size=(POOL, TESTS))


@pytest.fixture
def runs(truth: tuple[np.ndarray, np.ndarray], make_dynamics: MakeDynamics, make_curricula: MakeCurricula) -> Dynamics:
    """24 runs of Simfluence's own recurrence, noise-free."""
    curricula = make_curricula(0, 24, STEPS, POOL, BATCH)
    return make_dynamics(curricula, free_running(*truth, curricula, np.linspace(1, 3, TESTS)), POOL)


def test_persistence_repeats_the_first_value(runs: Dynamics) -> None:
    found = Persistence().predict(runs)
    for run in range(len(runs.runs)):
        for step in range(STEPS + 1):
            assert found[run, step].tolist() == runs.values[run, 0].tolist()


def test_the_mean_curve_is_that_of_the_runs_it_was_given(runs: Dynamics) -> None:
    found = MeanCurve(runs.take([0, 3, 5])).predict(runs.take([7, 8]))
    wanted = sum(runs.values[at].astype(float) for at in (0, 3, 5)) / 3
    np.testing.assert_allclose(found, np.stack([wanted, wanted]), rtol=1e-6)


def test_baselines_have_what_an_evaluation_asks_for(runs: Dynamics) -> None:
    methods: list[Predictor] = [Persistence(), MeanCurve(runs), SimfluenceLinear(runs, runs)]
    assert [method.name for method in methods] == ["persistence", "mean_curve", "simfluence_linear"]
    for method in methods:
        assert (method.model, method.history) == (None, 1)
        before = runs.values.copy()
        assert method.predict(runs).shape == runs.values.shape
        np.testing.assert_array_equal(runs.values, before)


def slow_ridge(runs: Dynamics, test: int, penalties: tuple[float, float]) -> np.ndarray:
    """phi_t - phi_{t-1} on (share * phi_{t-1}, share), for one test example: `[2, N]`."""
    rows, wanted = [], []
    for run, curriculum in enumerate(runs.curricula):
        for t, batch in enumerate(curriculum, start=1):
            share = np.zeros(POOL)
            for i in batch:
                share[i] += 1 / len(batch)
            before = float(runs.values[run, t - 1, test])
            rows.append(np.concatenate([share * before, share]))
            wanted.append(float(runs.values[run, t, test]) - before)
    x, y = np.array(rows), np.array(wanted)
    unit = np.square(x[:, POOL:]).sum(0).mean()
    scale = np.square(runs.values[:, :-1, test].astype(float)).mean()
    penalty = np.repeat([penalties[0] * unit * scale, penalties[1] * unit], POOL)
    padded = np.concatenate([x, np.diag(np.sqrt(penalty))])
    return np.linalg.lstsq(padded, np.concatenate([y, np.zeros(2 * POOL)]), rcond=None)[0].reshape(2, POOL)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])
def test_simfluence_is_a_ridge_regression_for_each_test_example(
    runs: Dynamics, ridge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simfluence, "RIDGES", (ridge,))
    found = SimfluenceLinear(runs, runs)
    assert found.penalties == (ridge, ridge)
    for test in range(TESTS):
        wanted = slow_ridge(runs, test, (ridge, ridge))
        np.testing.assert_allclose(found.factors[:, :, test].numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_simfluence_predicts_by_its_recurrence(runs: Dynamics) -> None:
    found = SimfluenceLinear(runs.take(list(range(16))), runs.take([16, 17, 18]))
    held_out = runs.take([20, 21])
    change, add = found.factors.double().numpy()
    wanted = free_running(1 + change, add, held_out.curricula, held_out.values[0, 0])
    np.testing.assert_allclose(found.predict(held_out), wanted, rtol=1e-4)


def test_simfluence_chooses_the_penalties_with_the_least_error_on_validation_runs(runs: Dynamics) -> None:
    training, validation = runs.take([0, 1, 2, 3]), runs.take([16, 17, 18])
    found = SimfluenceLinear(training, validation)
    errors = {}
    for first in simfluence.RIDGES:
        for second in simfluence.RIDGES:
            change, add = np.stack([slow_ridge(training, t, (first, second)) for t in range(TESTS)], -1)
            predicted = free_running(1 + change, add, validation.curricula, validation.values[0, 0])
            errors[first, second] = np.square(predicted - validation.values)[:, 1:].mean()
    assert errors[found.penalties] == pytest.approx(min(errors.values()), rel=1e-3)


def test_simfluence_finds_its_own_truth_on_noise_free_runs(
    runs: Dynamics, truth: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simfluence, "RIDGES", (1e-6,))
    found = SimfluenceLinear(runs.take(list(range(20))), runs.take([20, 21]))
    held_out = runs.take([22, 23])
    np.testing.assert_allclose(found.predict(held_out), held_out.values, atol=0.02)
    np.testing.assert_allclose(1 + found.factors[0].numpy(), truth[0], atol=0.1)


def test_simfluence_with_its_own_grid_is_far_better_than_persistence_on_its_own_truth(runs: Dynamics) -> None:
    found = SimfluenceLinear(runs.take(list(range(20))), runs.take([20, 21]))
    held_out = runs.take([22, 23])
    error = np.square(found.predict(held_out) - held_out.values).mean()
    assert error < 0.01 * np.square(Persistence().predict(held_out) - held_out.values).mean()


def test_markov_of_order_one_with_index_vectors_is_simfluence(runs: Dynamics) -> None:
    simfluence_linear = SimfluenceLinear(runs.take(list(range(16))), runs.take([16, 17, 18]))
    config = GPTfluenceConfig(encoder_width=POOL, hidden=TESTS, batch_size=BATCH)
    dynamics = MarkovDynamics(config)
    change, add = simfluence_linear.factors
    with torch.no_grad():
        dynamics.train_side.copy_(torch.stack([1 + change, add]) / BATCH)
        dynamics.test_side.copy_(torch.eye(POOL, TESTS).expand(2, -1, -1))
    held_out = runs.take([20, 21])
    visits = visit_shares(held_out.curricula, range(POOL))
    first = torch.from_numpy(held_out.values[:, :1])
    found = dynamics(visits, torch.eye(POOL), torch.eye(TESTS, POOL), first).detach().numpy()
    np.testing.assert_allclose(found, simfluence_linear.predict(held_out), rtol=1e-5)


def test_simfluence_handles_runs_measured_now_and_then(
    make_dynamics: MakeDynamics, make_curricula: MakeCurricula
) -> None:
    curricula = make_curricula(3, 6, STEPS, POOL, BATCH)
    values = np.random.default_rng(3).uniform(1, 2, size=(6, 3, TESTS))
    sparse = make_dynamics(curricula, values, POOL, step=[0, 4, 8])
    found = SimfluenceLinear(sparse, sparse).predict(sparse)
    assert found.shape == values.shape
    assert np.isfinite(found).all()
