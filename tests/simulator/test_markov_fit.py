"""Training markov dynamics: its objective, its stopping rule, and a known truth that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gptdynamics.curriculum import Curriculum
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members, visit_shares
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.training import markov_fit, markov_training
from simulator.training.markov_data import MarkovData, free_running_error, row_errors, triple_errors
from simulator.training.markov_fit import fit_markov
from simulator.training.markov_training import MarkovChoice, MarkovTraining, train_markov

POOL, TESTS, STEPS, BATCH = 12, 5, 8, 2
SHORT = MarkovTraining(most_updates=40, batch_rows=32, check_every=10)
CHOICE = MarkovChoice(learning_rate=3e-3, penalty=1e-4, hidden=8)
MakeCurricula = Callable[..., list[Curriculum]]
Learnable = tuple[list[MarkovData], list[MarkovData]]


def config_of(width: int, order: int = 1, projection: str = "linear", hidden: int = 8) -> GPTfluenceConfig:
    return GPTfluenceConfig(encoder_width=width, order=order, projection=projection, hidden=hidden, batch_size=BATCH)


def dynamics_of(config: GPTfluenceConfig, seed: int = 0) -> MarkovDynamics:
    torch.manual_seed(seed)
    dynamics = MarkovDynamics(config)
    dynamics.reset(scale=1.0)
    return dynamics


def data_of(curricula: list[Curriculum], values: torch.Tensor, pool: torch.Tensor, test: torch.Tensor) -> MarkovData:
    members = Members.between(curricula, range(POOL), range(len(curricula[0]) + 1))
    return MarkovData(members, values, pool, test, BATCH)


def random_data(seed: int, curricula: list[Curriculum], width: int = 4) -> MarkovData:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape)).float()

    values = normal(len(curricula), TESTS, len(curricula[0]) + 1)
    return data_of(curricula, values, normal(POOL, width), normal(TESTS, width))


@pytest.mark.parametrize("projection", ["linear", "mlp"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_one_step_loss_equals_a_loop_over_rows_and_test_examples(
    order: int, projection: str, make_curricula: MakeCurricula
) -> None:
    curricula = make_curricula(0, 4, STEPS, POOL, BATCH)
    data = random_data(0, curricula)
    dynamics = dynamics_of(config_of(4, order, projection))
    pairs = [(run, step) for run in range(4) for step in range(order - 1, STEPS)][::3]
    usable = STEPS - order + 1
    rows = torch.tensor([run * usable + step - order + 1 for run, step in pairs])
    factors = dynamics.factors(data.pool, data.test).detach().double()
    errors = []
    for run, step in pairs:
        batch = curricula[run][step]
        for test in range(TESTS):
            predicted = sum(float(factors[order, i, test]) for i in batch)
            for j in range(1, order + 1):
                alpha = sum(float(factors[j - 1, i, test]) for i in batch)
                predicted += alpha * float(data.values[run, test, step + 1 - j])
            errors.append((predicted - float(data.values[run, test, step + 1])) ** 2)
    assert row_errors(dynamics, data, rows).item() == pytest.approx(np.sum(errors), rel=1e-5)
    triples = (rows.unsqueeze(1) * TESTS + torch.arange(TESTS)).flatten()
    some = torch.randperm(len(triples), generator=torch.Generator().manual_seed(0))[:7]
    wanted = np.array(errors)[some.numpy()].sum()
    assert triple_errors(dynamics, data, triples[some]).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_free_running_error_scores_every_step_after_the_given_ones(order: int, make_curricula: MakeCurricula) -> None:
    curricula = make_curricula(1, 3, STEPS, POOL, BATCH)
    data = random_data(1, curricula)
    dynamics = dynamics_of(config_of(4, order))
    predicted = dynamics(visit_shares(curricula, range(POOL)), data.pool, data.test, data.values[..., :order]).detach()
    error = (predicted - data.values)[..., order:].double().square().mean().item()
    assert free_running_error(dynamics, data) == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_free_running_error_is_infinite_where_predictions_blow_up(order: int, make_curricula: MakeCurricula) -> None:
    curricula = make_curricula(2, 2, 40, POOL, BATCH)
    data = random_data(2, curricula)
    dynamics = dynamics_of(config_of(4, order))
    with torch.no_grad():
        dynamics.train_side.mul_(1e6)
        predicted = dynamics(visit_shares(curricula, range(POOL)), data.pool, data.test, data.values[..., :order])
    assert not torch.isfinite(predicted).all()
    assert order == 1 or predicted.isnan().any()
    assert free_running_error(dynamics, data) == math.inf


def truth(curricula: list[Curriculum]) -> MarkovData:
    """Runs of a known first-order recurrence; the vectors only say which example it is."""
    rng = np.random.default_rng(0)
    multiply = 0.5 * (0.95 + 0.1 * rng.uniform(-1, 1, size=(POOL, TESTS)))
    add = 0.5 * (0.1 * rng.uniform(-1, 1, size=(POOL, TESTS)) - 0.02)
    values = np.zeros((len(curricula), TESTS, len(curricula[0]) + 1))
    values[..., 0] = np.linspace(1, 2, TESTS)
    for run, curriculum in enumerate(curricula):
        for t, batch in enumerate(curriculum, start=1):
            values[run, :, t] = multiply[batch].sum(0) * values[run, :, t - 1] + add[batch].sum(0)
    return data_of(curricula, torch.from_numpy(values).float(), torch.eye(POOL), torch.eye(TESTS, POOL))


@pytest.fixture
def learnable(make_curricula: MakeCurricula) -> tuple[list[MarkovData], list[MarkovData]]:
    """Training and validation runs of the known recurrence."""
    runs = make_curricula(0, 20, STEPS, POOL, BATCH)
    return [truth(runs[:16])], [truth(runs[16:])]


def persistence_error(data: MarkovData) -> float:
    return (data.values[..., 1:] - data.values[..., :1]).square().mean().item()


def test_a_known_recurrence_is_learned(learnable: Learnable) -> None:
    how = MarkovTraining(most_updates=600, batch_rows=64, check_every=50)
    choice = replace(CHOICE, learning_rate=1e-2)
    error = train_markov(config_of(POOL), *learnable, choice, how).error
    assert error < 0.02 * persistence_error(learnable[1][0])


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(projection: str, learnable: Learnable) -> None:
    def weights(seed: int) -> torch.Tensor:
        how = replace(SHORT, seed=seed)
        dynamics = train_markov(config_of(POOL, 2, projection), *learnable, CHOICE, how).dynamics
        return torch.cat([value.flatten() for value in dynamics.state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_weights_of_the_best_validation_are_returned(learnable: Learnable, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([5.0, 4.0, 1.0, 3.0, 2.0])
    checked = []

    def told(dynamics: MarkovDynamics, data: MarkovData) -> float:
        checked.append(dynamics.train_side.detach().clone())
        return next(errors)

    monkeypatch.setattr(markov_training, "free_running_error", told)
    found = train_markov(config_of(POOL), *learnable, CHOICE, SHORT)
    assert found.error == 1
    assert torch.equal(found.dynamics.train_side, checked[2])
    assert not torch.equal(checked[2], checked[4])


def test_only_steps_with_a_whole_history_are_trained_on(learnable: Learnable, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def noted(dynamics: MarkovDynamics, data: MarkovData, rows: torch.Tensor) -> torch.Tensor:
        trained.append(rows)
        return row_errors(dynamics, data, rows)

    monkeypatch.setattr(markov_training, "row_errors", noted)
    train_markov(config_of(POOL, order=3), *learnable, CHOICE, SHORT)
    assert torch.cat(trained).unique().tolist() == list(range(16 * (STEPS - 2)))


def test_training_starts_near_persistence(learnable: Learnable) -> None:
    error = train_markov(config_of(POOL), *learnable, CHOICE, replace(SHORT, most_updates=0)).error
    assert error == pytest.approx(persistence_error(learnable[1][0]), rel=0.5)


def test_training_stops_when_validation_gets_no_better(learnable: Learnable, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def worse(dynamics: MarkovDynamics, data: MarkovData) -> float:
        checked.append(dynamics)
        return float(len(checked))

    monkeypatch.setattr(markov_training, "free_running_error", worse)
    how = MarkovTraining(most_updates=1000, batch_rows=8, check_every=1, patience=3)
    train_markov(config_of(POOL), *learnable, CHOICE, how)
    assert len(checked) == 1 + how.patience


def test_every_setting_is_tried_and_the_one_with_the_least_validation_error_wins(
    learnable: Learnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markov_fit, "LEARNING_RATES", (1e-4, 1e-2))
    monkeypatch.setattr(markov_fit, "PENALTIES", (1e-5,))
    monkeypatch.setattr(markov_fit, "HIDDEN", (2, 8))
    ticks = []
    fit = fit_markov(config_of(POOL), *learnable, SHORT, lambda: ticks.append(1))
    assert [choice for choice, _ in fit.tried] == markov_fit.choices()
    assert len(fit.tried) == len(ticks) == 4
    assert (fit.choice, fit.error) == min(fit.tried, key=lambda pair: pair[1])
    assert fit.dynamics.train_side.size(-1) == fit.choice.hidden
    assert free_running_error(fit.dynamics, learnable[1][0]) == pytest.approx(fit.error, rel=1e-6)
