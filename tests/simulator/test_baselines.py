"""The methods that simulators are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from simulator.baselines import (
    BASELINES,
    MeanCurve,
    MeanCurveShifted,
    NotApplicableError,
    Persistence,
    Simfluence,
    SimfluenceDescent,
    fit_baseline,
)
from simulator.baselines.simfluence import Kind
from simulator.baselines.simfluence_descent import Descent
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import visit_shares
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.settings.evaluate import BASELINE_NAMES
from simulator.training import table_fit
from simulator.training.table_fit import TableChoice

POOL, TESTS, STEPS, BATCH = 10, 3, 8, 2
MakeDynamics = Callable[..., Dynamics]
MakeCurricula = Callable[..., list[Curriculum]]


def free_running(multiply: np.ndarray, add: np.ndarray, curricula: list[Curriculum], first: np.ndarray) -> np.ndarray:
    """Eq. 3 as a loop: phi_t = mean of the batch's multiply * phi_{t-1} + mean of its add; `[R, M, T + 1]`."""
    values = np.zeros((len(curricula), len(first), len(curricula[0]) + 1))
    values[..., 0] = first
    for run, curriculum in enumerate(curricula):
        for t, batch in enumerate(curriculum, start=1):
            values[run, :, t] = multiply[batch].mean(0) * values[run, :, t - 1] + add[batch].mean(0)
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
            assert found[run, :, step].tolist() == runs.values[run, :, 0].tolist()


def test_the_mean_curve_is_that_of_the_runs_it_was_given(runs: Dynamics) -> None:
    found = MeanCurve(runs.take([0, 3, 5])).predict(runs.take([7, 8]))
    wanted = sum(runs.values[at].astype(float) for at in (0, 3, 5)) / 3
    np.testing.assert_allclose(found, np.stack([wanted, wanted]), rtol=1e-6)


def test_the_shifted_mean_curve_passes_through_the_last_given_value(runs: Dynamics) -> None:
    held_out = runs.take([7, 8])
    found = MeanCurveShifted(runs.take([0, 3, 5]), history=3).predict(held_out)
    plain = MeanCurve(runs.take([0, 3, 5])).predict(held_out)
    for run in range(2):
        for step in range(STEPS + 1):
            for test in range(TESTS):
                moved = plain[run, test, step] + held_out.values[run, test, 2] - plain[run, test, 2]
                wanted = held_out.values[run, test, step] if step < 3 else moved
                assert found[run, test, step] == pytest.approx(wanted, rel=1e-5)


WITHOUT_GRADIENTS = [name for name in BASELINES if "tracin" not in name and "dot" not in name]


@pytest.mark.parametrize("name", WITHOUT_GRADIENTS)
def test_every_baseline_is_fitted_and_predicts_alike(runs: Dynamics, name: str) -> None:
    before = runs.values.copy()
    method = fit_baseline(name, runs.split("train", "validation"), history=2)
    assert method.name == name
    assert method.model is None
    assert method.history == (2 if name == "mean_curve_shifted" else 1)
    found = method.predict(runs.split("test"))
    assert found.shape == runs.split("test").values.shape
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(runs.values, before)


@pytest.mark.parametrize("name", sorted(set(BASELINES) - set(WITHOUT_GRADIENTS)))
def test_gradient_methods_say_that_they_predict_losses_only(
    runs: Dynamics, name: str, make_dynamics: MakeDynamics
) -> None:
    accuracy = make_dynamics(runs.curricula, runs.values, POOL, metric="accuracy")
    with pytest.raises(NotApplicableError, match=f"{name} predicts changes of the loss; accuracy has no gradient"):
        fit_baseline(name, accuracy)


def test_an_unknown_baseline_is_refused(runs: Dynamics) -> None:
    assert tuple(BASELINES) == BASELINE_NAMES
    with pytest.raises(SettingsError, match=r"no baseline 'magic'; there are: persistence, mean_curve"):
        fit_baseline("magic", runs)


def slow_rows(runs: Dynamics, test: int, penalties: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi_t - phi_{t-1} and (share * phi_{t-1}, share), for one test example, and the penalty of each number."""
    rows, wanted = [], []
    for run, curriculum in enumerate(runs.curricula):
        for t, batch in enumerate(curriculum, start=1):
            share = np.zeros(POOL)
            for i in batch:
                share[i] += 1 / len(batch)
            before = float(runs.values[run, test, t - 1])
            rows.append(np.concatenate([share * before, share]))
            wanted.append(float(runs.values[run, test, t]) - before)
    x, y = np.array(rows), np.array(wanted)
    unit = np.square(x[:, POOL:]).sum(0).mean()
    scale = np.square(runs.values[:, test, :-1].astype(float)).mean()
    return x, y, np.repeat([penalties[0] * unit * scale, penalties[1] * unit], POOL)


def slow_ridge(runs: Dynamics, test: int, penalties: tuple[float, float]) -> np.ndarray:
    """The ridge regression for one test example: `[2, N]`."""
    x, y, penalty = slow_rows(runs, test, penalties)
    padded = np.concatenate([x, np.diag(np.sqrt(penalty))])
    return np.linalg.lstsq(padded, np.concatenate([y, np.zeros(2 * POOL)]), rcond=None)[0].reshape(2, POOL)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])
def test_simfluence_is_a_ridge_regression_for_each_test_example(
    runs: Dynamics, ridge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_fit, "RIDGES", (ridge,))
    found = Simfluence("linear", runs, runs)
    assert found.fit.choice == TableChoice(ridge, ridge)
    for test in range(TESTS):
        wanted = slow_ridge(runs, test, (ridge, ridge))
        np.testing.assert_allclose(found.fit.factors[:, :, test].numpy(), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_rows_than_factors_are_the_same_regression(
    runs: Dynamics, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_fit, "RIDGES", (0.1,))
    few = runs.take(list(range(count)))
    assert count * STEPS < 2 * POOL
    found = Simfluence("linear", few, runs)
    for test in range(TESTS):
        wanted = slow_ridge(few, test, (0.1, 0.1))
        np.testing.assert_allclose(found.fit.factors[:, :, test].numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_penalties_are_chosen_on_some_of_many_test_examples(runs: Dynamics, monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = runs.take([0, 1, 2, 3]), runs.take([16, 17, 18])
    monkeypatch.setattr(table_fit, "TUNED_TESTS", 2)
    found = Simfluence("linear", training, validation)

    def ends(of: Dynamics) -> Dynamics:
        return replace(of, test=[of.test[0], of.test[-1]], values=of.values[:, [0, -1]])

    assert found.fit.choice == Simfluence("linear", ends(training), ends(validation)).fit.choice
    assert found.fit.factors.shape == (2, POOL, TESTS)


@pytest.mark.parametrize(("kind", "fitted"), [("additive", 1), ("multiplicative", 0)])
def test_one_sided_simfluence_holds_the_other_side_at_persistence(
    runs: Dynamics, kind: Kind, fitted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_fit, "RIDGES", (1.0,))
    found = Simfluence(kind, runs, runs)
    assert found.fit.factors[1 - fitted].abs().max() == 0
    for test in range(TESTS):
        x, y, penalties = slow_rows(runs, test, (1.0, 1.0))
        side = slice(fitted * POOL, (fitted + 1) * POOL)
        padded = np.concatenate([x[:, side], np.diag(np.sqrt(penalties[side]))])
        wanted = np.linalg.lstsq(padded, np.concatenate([y, np.zeros(POOL)]), rcond=None)[0]
        np.testing.assert_allclose(found.fit.factors[fitted, :, test].numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_the_papers_training_is_adamw_on_one_step_errors(runs: Dynamics) -> None:
    training, validation = runs.take(list(range(6))), runs.take([6, 7])
    how = Descent(epochs=2, warmup=3, batch_rows=48, learning_rate=0.1, start="normal")
    found = SimfluenceDescent(training, validation, how)
    random = torch.Generator().manual_seed(how.seed)
    weights = [each.clone().requires_grad_() for each in torch.randn(2, POOL, TESTS, generator=random)]
    optimizer = torch.optim.AdamW(weights, lr=how.learning_rate, weight_decay=how.weight_decay)
    best, wanted = float("inf"), np.empty(0)
    for epoch in range(2):
        torch.randperm(48, generator=random)
        loss = torch.zeros(TESTS)
        for run, curriculum in enumerate(training.curricula):
            for t, batch in enumerate(curriculum, start=1):
                before, after = (torch.from_numpy(training.values[run, :, at]) for at in (t - 1, t))
                predicted = sum(weights[0][i] for i in batch) * before + sum(weights[1][i] for i in batch)
                loss = loss + (predicted - after) ** 2 / 48
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.param_groups[0]["lr"] = how.learning_rate * (epoch + 1) / 3
        optimizer.step()
        multiply, add = (each.detach().numpy() * BATCH for each in weights)
        predicted = free_running(multiply, add, validation.curricula, validation.values[0, :, 0])
        error = float(np.square(predicted - validation.values)[..., 1:].mean())
        assert found.errors[epoch] == pytest.approx(error, rel=1e-3)
        if error < best:
            best, wanted = error, predicted
    np.testing.assert_allclose(found.predict(validation), wanted, rtol=1e-3)


def test_the_papers_training_begins_at_persistence(runs: Dynamics) -> None:
    found = SimfluenceDescent(runs.take([0, 1]), runs.take([2]), Descent(learning_rate=0.0, epochs=1))
    np.testing.assert_allclose(found.predict(runs), Persistence().predict(runs), rtol=1e-5)


def test_the_papers_training_comes_close_to_its_own_truth(runs: Dynamics) -> None:
    how = Descent(learning_rate=1e-2)
    found = SimfluenceDescent(runs.take(list(range(20))), runs.take([20, 21]), how)
    held_out = runs.take([22, 23])
    error = np.square(found.predict(held_out) - held_out.values).mean()
    assert error < 0.1 * np.square(Persistence().predict(held_out) - held_out.values).mean()
    assert len(found.errors) <= how.epochs


def test_simfluence_predicts_by_its_recurrence(runs: Dynamics) -> None:
    found = Simfluence("linear", runs.take(list(range(16))), runs.take([16, 17, 18]))
    held_out = runs.take([20, 21])
    change, add = found.fit.factors.double().numpy()
    wanted = free_running(1 + change, add, held_out.curricula, held_out.values[0, :, 0])
    np.testing.assert_allclose(found.predict(held_out), wanted, rtol=1e-4)


def test_simfluence_chooses_the_penalties_with_the_least_error_on_validation_runs(runs: Dynamics) -> None:
    training, validation = runs.take([0, 1, 2, 3]), runs.take([16, 17, 18])
    found = Simfluence("linear", training, validation)
    errors = {}
    for first in table_fit.RIDGES:
        for second in table_fit.RIDGES:
            change, add = np.stack([slow_ridge(training, t, (first, second)) for t in range(TESTS)], -1)
            predicted = free_running(1 + change, add, validation.curricula, validation.values[0, :, 0])
            errors[first, second] = np.square(predicted - validation.values)[..., 1:].mean()
    assert errors[found.fit.choice.alpha, found.fit.choice.beta] == pytest.approx(min(errors.values()), rel=1e-3)


def test_simfluence_finds_its_own_truth_on_noise_free_runs(
    runs: Dynamics, truth: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_fit, "RIDGES", (1e-6,))
    found = Simfluence("linear", runs.take(list(range(20))), runs.take([20, 21]))
    held_out = runs.take([22, 23])
    np.testing.assert_allclose(found.predict(held_out), held_out.values, atol=0.02)
    np.testing.assert_allclose(1 + found.fit.factors[0].numpy(), truth[0], atol=0.1)


def test_simfluence_with_its_own_grid_is_far_better_than_persistence_on_its_own_truth(runs: Dynamics) -> None:
    found = Simfluence("linear", runs.take(list(range(20))), runs.take([20, 21]))
    held_out = runs.take([22, 23])
    error = np.square(found.predict(held_out) - held_out.values).mean()
    assert error < 0.01 * np.square(Persistence().predict(held_out) - held_out.values).mean()


def test_markov_of_order_one_with_index_vectors_is_simfluence(runs: Dynamics) -> None:
    simfluence_linear = Simfluence("linear", runs.take(list(range(16))), runs.take([16, 17, 18]))
    config = GPTfluenceConfig(encoder_width=POOL, hidden=TESTS, batch_size=BATCH)
    dynamics = MarkovDynamics(config)
    change, add = simfluence_linear.fit.factors
    with torch.no_grad():
        dynamics.train_side.copy_(torch.stack([1 + change, add]) / BATCH)
        dynamics.test_side.copy_(torch.eye(POOL, TESTS).expand(2, -1, -1))
    held_out = runs.take([20, 21])
    visits = visit_shares(held_out.curricula, range(POOL))
    first = torch.from_numpy(held_out.values[..., :1])
    found = dynamics(visits, torch.eye(POOL), torch.eye(TESTS, POOL), first).detach().numpy()
    np.testing.assert_allclose(found, simfluence_linear.predict(held_out), rtol=1e-5)


def test_simfluence_handles_runs_measured_now_and_then(
    make_dynamics: MakeDynamics, make_curricula: MakeCurricula
) -> None:
    curricula = make_curricula(3, 6, STEPS, POOL, BATCH)
    values = np.random.default_rng(3).uniform(1, 2, size=(6, TESTS, 3))
    sparse = make_dynamics(curricula, values, POOL, step=[0, 4, 8])
    found = Simfluence("linear", sparse, sparse).predict(sparse)
    assert found.shape == values.shape
    assert np.isfinite(found).all()
