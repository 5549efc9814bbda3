"""Fitting memory dynamics: the closed form equals refitting, and a known truth is found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum, linear_decay
from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import GPTfluenceConfig, Scale, scale_of
from simulator.model.curricula import Members, visit_shares
from simulator.model.dynamics import EncodedExamples, SimulationInputs
from simulator.model.latent import from_latent, to_latent
from simulator.model.memory_dynamics import MemoryDynamics
from simulator.training import memory_fit, memory_states
from simulator.training.leave_one_run_out import leave_one_run_out
from simulator.training.mean_curve_fit import CURVE_COMPONENTS, UNSEEN_RIDGES, ridge_by_left_out
from simulator.training.memory_fit import MemoryFit, fit_memory
from simulator.training.memory_states import (
    fit_reduction,
    likeness,
    response_features,
    unit_length,
    unseen_responses,
)

POOL, STEPS, WIDTH = 30, 12, 2
MakeCurricula = Callable[..., list[Curriculum]]


def slow_leave_one_run_out(
    states: np.ndarray, values: np.ndarray, covariance: np.ndarray, ridge: float, scale: Scale
) -> np.ndarray:
    """Refit without each run: a mean for each step, one big Bayesian regression, the error on the run left out."""
    latent, tests = to_latent(torch.from_numpy(values), scale).numpy(), values.shape[1]
    effects, truths, means = (np.zeros_like(values) for _ in range(3))
    for out in range(len(states)):
        x, y = np.delete(states, out, 0), np.delete(latent, out, 0)
        mean_x, mean_y = x.mean(0), y.mean(0)
        flat_x, flat_y = (x - mean_x).reshape(-1, x.shape[-1]), (y - mean_y).swapaxes(1, 2).reshape(-1, tests)
        unit = np.linalg.eigvalsh(flat_x.T @ flat_x).mean()
        # Responses of all test examples in one vector, with prior covariance (covariance x identity) / (ridge * unit).
        whole = np.kron(np.eye(tests), flat_x.T @ flat_x)
        whole += ridge * unit * np.kron(np.linalg.inv(covariance), np.eye(x.shape[-1]))
        fit = np.linalg.solve(whole, (flat_x.T @ flat_y).T.reshape(-1)).reshape(tests, -1).T
        effects[out], truths[out], means[out] = ((states[out] - mean_x) @ fit).T, latent[out] - mean_y, mean_y
    found = np.zeros_like(values)
    for out, step in np.ndindex(len(values), values.shape[2]):
        near = slice(max(step - 4, 0), step + 5)
        e, t = np.delete(effects, out, 0)[..., near], np.delete(truths, out, 0)[..., near]
        share = min(max((e * t).sum() / np.square(e).sum(), 0.0), 1.0) if np.square(e).sum() > 0 else 1.0
        # All effects count as real in one further run.
        share = (len(e) * share + 1) / (len(e) + 1)
        predicted = torch.from_numpy(np.array(means[out, :, step] + share * effects[out, :, step]))
        found[out, :, step] = values[out, :, step] - from_latent(predicted, scale).numpy()
    return found


@given(
    runs=st.integers(3, 6),
    steps=st.integers(2, 8),
    width=st.integers(1, 5),
    tests=st.integers(1, 4),
    metric=st.sampled_from(["loss", "bleu"]),
    seed=st.integers(0, 2**31 - 1),
)
def test_leave_one_run_out_equals_refitting(
    runs: int, steps: int, width: int, tests: int, metric: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(runs, steps, width)) + rng.normal(size=(steps, width))
    effects = np.einsum("rsd,md->rms", states, rng.normal(size=(tests, width)))
    values = 5 + effects / 4 + rng.normal(size=(runs, tests, steps)) / 4
    values = values.clip(min=0.1)
    covariance = likeness(rng.normal(size=(tests, 2)))
    ridges = (0.01, 1.0, 30.0)
    wanted = [slow_leave_one_run_out(states, values, covariance, ridge, scale_of(metric)) for ridge in ridges]
    found, shares, without = leave_one_run_out(states, values, covariance, ridges, scale_of(metric))
    assert shares.shape == (3, steps) and without.shape == (3, runs, steps)
    assert ((shares >= 0) & (shares <= 1)).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


@given(rows=st.integers(3, 12), width=st.integers(2, 6), components=st.integers(1, 8), seed=st.integers(0, 2**31 - 1))
def test_reduction_has_uncorrelated_components_of_unit_size_in_all(
    rows: int, width: int, components: int, seed: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)) + 10
    reduction = fit_reduction(vectors, components)
    psi = (vectors - reduction.mean) @ reduction.axes
    assert psi.shape == (rows, min(components, rows - 1, width))
    scatter = psi.T @ psi / rows
    np.testing.assert_allclose(np.trace(scatter), 1)
    np.testing.assert_allclose(scatter, np.diag(np.diag(scatter)), atol=1e-9)
    np.testing.assert_allclose(reduction.sizes, np.sqrt(np.diag(scatter) / scatter[0, 0]), rtol=1e-6)
    assert (np.diff(reduction.sizes) <= 1e-9).all()


def test_equal_vectors_reduce_to_zero() -> None:
    vectors = np.full((5, 3), 2.0)
    reduction = fit_reduction(vectors, 2)
    np.testing.assert_array_equal((vectors - reduction.mean) @ reduction.axes, np.zeros((5, 1)))


@dataclass
class World:
    """Runs that obey memory dynamics of BLEU exactly. `seen` test examples are fitted on, the others come after."""

    pool: np.ndarray
    test: np.ndarray
    initial: np.ndarray
    decays: tuple[float, ...]
    seen: int

    def values(self, curricula: list[Curriculum], rates: list[float]) -> np.ndarray:
        """The formulas as a loop: `[R, M, T + 1]`, curve and response both functions of psi'."""
        centre = self.pool.mean(0)
        strength = np.array([0.3 / (1 + rank) for rank in range(len(self.decays))])
        turn = np.array([[0.6, -0.2], [0.1, 0.5]])
        out = np.zeros((len(curricula), len(self.test), len(rates) + 1))
        for run, curriculum in enumerate(curricula):
            m = np.zeros((len(self.decays), WIDTH))
            tau = 0.0
            for t in range(len(rates) + 1):
                if t:
                    share = rates[t - 1] / rates[0]
                    u = share * np.mean([self.pool[i] - centre for i in curriculum[t - 1]], axis=0)
                    m = np.array([rho * old + u for rho, old in zip(self.decays, m, strict=True)])
                    tau += share
                for at, psi in enumerate(self.test):
                    curve = self.initial[at] - (1 - np.exp(-tau / 4)) * (1.0 + psi[0])
                    out[run, at, t] = curve + (strength @ m) @ (turn @ psi)
        return out


def make_world(decays: tuple[float, ...], seen: int = 16, unseen: int = 10) -> World:
    rng = np.random.default_rng(5)
    return World(
        pool=unit_length(rng.normal(size=(POOL, WIDTH))),
        test=unit_length(rng.normal(size=(seen + unseen, WIDTH))),
        initial=rng.uniform(20, 21, size=seen + unseen),
        decays=decays,
        seen=seen,
    )


RATES = linear_decay(1e-3, STEPS)


def fit_world(world: World, curricula: list[Curriculum], step: list[int] | None = None) -> MemoryFit:
    at = list(range(STEPS + 1)) if step is None else step
    values = world.values(curricula, RATES)[:, : world.seen, at].astype(np.float32)
    visits = Members.between(curricula, range(POOL), range(STEPS + 1))
    rates = np.array([RATES] * len(curricula))
    return fit_memory(visits, rates, np.array(at), values, world.pool, world.test[: world.seen], scale_of("bleu"))


def predict(fit: MemoryFit, world: World, curricula: list[Curriculum], seen: bool) -> np.ndarray:
    """Trajectories of the seen or of the unseen test examples from the fitted arrays."""
    config = GPTfluenceConfig(
        dynamics="memory",
        metric="bleu",
        encoder_width=WIDTH,
        test_keys=[""] * world.seen,
        steps=STEPS,
        components=fit.choice.components,
        test_components=fit.arrays["test_projection"].shape[1],
        decays=list(fit.choice.filters.decays),
        fade_rates=list(fit.choice.filters.fade_rates),
        momenta=list(fit.choice.filters.momenta),
        curvatures=list(fit.choice.filters.curvatures),
        curve_components=CURVE_COMPONENTS,
    )
    dynamics = MemoryDynamics(config)
    dynamics.load_state_dict({name: torch.from_numpy(array) for name, array in fit.arrays.items()})
    which = slice(0, world.seen) if seen else slice(world.seen, None)
    test, initial = world.test[which], world.initial[which]
    inputs = SimulationInputs(
        visit_shares(curricula, range(POOL)),
        torch.tensor([RATES] * len(curricula)),
        EncodedExamples(
            torch.from_numpy(world.pool).float(),
            torch.from_numpy(test).float(),
            torch.arange(len(test)) if seen else torch.full((len(test),), -1),
        ),
        torch.from_numpy(initial).float()[None, :, None],
    )
    return dynamics.trajectories(inputs).numpy()


DECAYS = (0.0, 0.5, 0.8, 0.95, 1.0)
OWN = memory_states.Filters(DECAYS, (0.0, 6.0))


def test_a_noise_free_truth_is_found_again(make_curricula: MakeCurricula, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_fit, "RIDGES", (1e-9,))
    monkeypatch.setattr(memory_fit, "FILTERS", (OWN,))
    world = make_world(DECAYS)
    fit = fit_world(world, make_curricula(0, 12, STEPS, POOL))
    new = make_curricula(1, 4, STEPS, POOL)
    truth = world.values(new, RATES)[:, : world.seen]
    moved = truth.std(0).mean()
    assert moved > 0.05
    np.testing.assert_allclose(predict(fit, world, new, seen=True), truth, atol=0.02 * moved)
    assert fit.error < (0.01 * moved) ** 2


def test_with_the_settings_as_they_are_nearly_everything_a_run_adds_is_predicted(
    make_curricula: MakeCurricula,
) -> None:
    world = make_world(DECAYS)
    curricula = make_curricula(0, 12, STEPS, POOL)
    fit = fit_world(world, curricula)
    new = make_curricula(1, 4, STEPS, POOL)
    truth = world.values(new, RATES)[:, : world.seen]
    mean_curve = world.values(curricula, RATES)[:, : world.seen].mean(0)
    error = np.square(predict(fit, world, new, seen=True) - truth).sum()
    assert 1 - error / np.square(mean_curve - truth).sum() > 0.9


def test_the_setting_with_the_least_error_on_runs_left_out_wins(make_curricula: MakeCurricula) -> None:
    fit = fit_world(make_world((1.0,)), make_curricula(0, 6, STEPS, POOL))
    assert len(fit.tried) == len(memory_fit.choices())
    assert {choice for choice, _ in fit.tried} == set(memory_fit.choices())
    assert fit.error == min(error for _, error in fit.tried)
    assert fit.choice.components <= WIDTH


def test_the_error_of_a_setting_is_that_of_refitting_without_each_run(
    make_curricula: MakeCurricula, monkeypatch: pytest.MonkeyPatch
) -> None:
    filters = memory_states.Filters((0.5, 1.0), (0.0, 3.0), (0.0, 0.6), (0.0, 2.0))
    monkeypatch.setattr(memory_fit, "FILTERS", (filters,))
    monkeypatch.setattr(memory_fit, "COMPONENTS", (WIDTH,))
    monkeypatch.setattr(memory_fit, "RIDGES", (2.0,))
    world, curricula = make_world((0.5,)), make_curricula(0, 5, STEPS, POOL)
    fit = fit_world(world, curricula)
    reduction = fit_reduction(np.concatenate([world.pool, world.test[: world.seen]]), memory_fit.TEST_COMPONENTS)
    psi = (world.pool - reduction.mean) @ reduction.axes[:, :WIDTH] * reduction.sizes[:WIDTH] ** 2
    whole = sum(RATES) / RATES[0]
    states = np.zeros((len(curricula), STEPS + 1, 8, WIDTH))
    for run, curriculum in enumerate(curricula):
        tau, v = 0.0, np.zeros((4, WIDTH))
        for t, batch in enumerate(curriculum, start=1):
            share = RATES[t - 1] / RATES[0]
            x = psi[batch].mean(0) - psi.mean(0)
            for at, (rho, kappa) in enumerate(product(filters.decays, filters.fade_rates)):
                states[run, t, at] = rho * states[run, t - 1, at] + np.exp(-kappa * tau / whole) * share * x
            for at, (momentum, curvature) in enumerate(product(filters.momenta, filters.curvatures)):
                most = (1 + momentum) / (1 - momentum)
                left = np.exp(-curvature * share / whole / most)
                pull = most * (1 - left) / share if share else curvature / whole
                v[at] = momentum * v[at] + (1 - momentum) * (x - pull * states[run, t - 1, 4 + at])
                states[run, t, 4 + at] = states[run, t - 1, 4 + at] + share * v[at]
            tau += share
    states /= np.sqrt(np.square(states).mean((0, 1, 3)))[:, None]
    values = world.values(curricula, RATES)[:, : world.seen]
    covariance = likeness((world.test[: world.seen] - reduction.mean) @ reduction.axes)
    wanted = slow_leave_one_run_out(states.reshape(5, STEPS + 1, -1), values, covariance, 2.0, scale_of("bleu"))
    assert fit.error == pytest.approx(np.square(wanted).mean(), rel=1e-3)
    np.testing.assert_allclose(fit.residuals[0], wanted, atol=1e-3 * np.abs(wanted).max())


def test_unseen_test_examples_are_predicted_from_their_vectors(make_curricula: MakeCurricula) -> None:
    world = make_world(DECAYS)
    curricula = make_curricula(0, 12, STEPS, POOL)
    fit = fit_world(world, curricula)
    new = make_curricula(1, 4, STEPS, POOL)
    truth = world.values(new, RATES)[:, world.seen :]
    found = predict(fit, world, new, seen=False)
    assert np.isfinite(found).all()
    error = np.square(found - truth).mean()
    persistence = np.square(truth[..., :1] - truth).mean()
    seen = world.values(curricula, RATES)[:, : world.seen].mean((0, 1))
    mean_change = np.square(truth[..., :1] + (seen - seen[0]) - truth).mean()
    assert error < 0.05 * persistence
    assert error < 0.1 * mean_change


def test_what_predicts_unseen_responses_is_their_mean_given_those_of_the_seen() -> None:
    rng = np.random.default_rng(0)
    psi, weights = rng.normal(size=(9, 3)), rng.normal(size=(6, 2))
    joint = likeness(psi)
    # The prior of seen and unseen together, in the units that it has for the seen alone.
    joint = (
        (joint - 0.1 * np.eye(9))
        * (6 / np.square(response_features(psi[:6])).sum())
        / (9 / np.square(response_features(psi)).sum())
    )
    wanted = joint[6:, :6] @ np.linalg.solve(likeness(psi[:6]), weights)
    found = np.column_stack([np.ones(3), psi[6:]]) @ unseen_responses(weights, psi[:6])
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_the_curve_of_an_unseen_example_is_the_ridge_with_the_least_error_on_examples_left_out() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([np.ones((3, 11, 1)), rng.normal(size=(3, 11, 4))], -1)
    wanted = features @ rng.normal(size=(5, 2)) + rng.normal(size=(3, 11, 2))
    unit = np.square(features).sum() / 5

    def solve(keep: np.ndarray, ridge: float) -> np.ndarray:
        x, y = features[:, keep].reshape(-1, 5), wanted[:, keep].reshape(-1, 2)
        return np.linalg.solve(x.T @ x + ridge * unit * np.diag([0.0, 1, 1, 1, 1]), x.T @ y)

    fold = np.arange(11) % 5
    errors = {
        ridge: sum(
            np.square(wanted[:, fold == out] - features[:, fold == out] @ solve(fold != out, ridge)).sum()
            for out in range(5)
        )
        for ridge in UNSEEN_RIDGES
    }
    best = min(errors, key=lambda ridge: errors[ridge])
    np.testing.assert_allclose(ridge_by_left_out(features, wanted), solve(fold >= 0, best), rtol=1e-6)


def test_residuals_of_unseen_examples_are_those_of_fits_without_them_and_the_run(make_curricula: MakeCurricula) -> None:
    world, curricula = make_world((1.0,)), make_curricula(0, 10, STEPS, POOL)
    fit = fit_world(world, curricula)
    known = np.isfinite(fit.residuals[1])
    for run, test in np.ndindex(10, world.seen):
        assert known[run, test].all() if run % 5 == test % 5 else not known[run, test].any()
    truth = world.values(curricula, RATES)[:, : world.seen]
    change = truth - truth[..., :1]
    assert np.nanmean(np.square(fit.residuals[1])) < 0.2 * np.square(change - change.mean((0, 1))).mean()


def test_runs_measured_now_and_then_give_a_curve_for_every_step(
    make_curricula: MakeCurricula, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_fit, "RIDGES", (1e-9,))
    monkeypatch.setattr(memory_fit, "FILTERS", (OWN,))
    world, step = make_world((1.0,)), [0, 4, 8, 11, 12]
    fit = fit_world(world, make_curricula(0, 12, STEPS, POOL), step)
    assert fit.arrays["baseline"].shape == (STEPS + 1, world.seen)
    new = make_curricula(1, 3, STEPS, POOL)
    truth = world.values(new, RATES)[:, : world.seen]
    found = predict(fit, world, new, seen=True)
    np.testing.assert_allclose(found[..., step], truth[..., step], atol=1e-3)


def test_fewer_test_examples_than_curve_components_are_enough(make_curricula: MakeCurricula) -> None:
    world = make_world((1.0,), seen=2, unseen=1)
    new = make_curricula(1, 2, STEPS, POOL)
    found = predict(fit_world(world, make_curricula(0, 5, STEPS, POOL)), world, new, seen=False)
    assert np.isfinite(found).all()


def test_four_runs_are_too_few(make_curricula: MakeCurricula) -> None:
    with pytest.raises(DataError, match=r"at least 5.*there are 4: collect at least 6 runs"):
        fit_world(make_world((1.0,)), make_curricula(0, 4, STEPS, POOL))


def test_runs_with_different_learning_rates_are_refused(make_curricula: MakeCurricula) -> None:
    world, curricula = make_world((1.0,)), make_curricula(0, 6, STEPS, POOL)
    rates = np.array([RATES] * 6)
    rates[2] *= 1.5
    visits = Members.between(curricula, range(POOL), range(STEPS + 1))
    values = world.values(curricula, RATES)[:, : world.seen]
    with pytest.raises(DataError, match="learning rates"):
        fit_memory(visits, rates, np.arange(STEPS + 1), values, world.pool, world.test[: world.seen])


def test_runs_at_a_learning_rate_of_zero_are_fitted(make_curricula: MakeCurricula) -> None:
    """Recorded runs may have it. Nothing moves, and nothing is said to."""
    world, curricula = make_world((1.0,)), make_curricula(0, 6, STEPS, POOL)
    visits = Members.between(curricula, range(POOL), range(STEPS + 1))
    values = np.tile(world.initial[: world.seen, None], (6, 1, STEPS + 1))
    rates = np.zeros((6, STEPS))
    fit = fit_memory(visits, rates, np.arange(STEPS + 1), values, world.pool, world.test[: world.seen])
    assert fit.error == pytest.approx(0, abs=1e-12)
    assert all(np.isfinite(each).all() for each in fit.arrays.values())


@pytest.mark.parametrize("lasting", [0.0, 1.0])
def test_a_deviation_at_the_start_is_carried_as_far_as_it_lasts(
    make_curricula: Callable[..., list[Curriculum]], lasting: float
) -> None:
    rng = np.random.default_rng(0)
    runs, steps, pool, tests = 24, 12, 10, 40
    visits = Members.between(make_curricula(0, runs, steps, pool), range(pool), range(steps + 1))
    start = rng.normal(size=(runs, tests, 1))
    later = lasting * start + rng.normal(0, 0.1, (runs, tests, steps))
    values = 20 + np.concatenate([start, later], axis=-1)
    rates = np.full((runs, steps), 1e-3)
    vectors = rng.normal(size=(pool + tests, 6))
    fit = memory_fit.fit_memory(
        visits, rates, np.arange(steps + 1), values, vectors[:pool], vectors[pool:], scale_of("bleu")
    )
    assert float(fit.arrays["carry"]) == pytest.approx(lasting, abs=0.1)
