"""`dynamics="memory"` agrees with a loop over its formulas; what follows exactly from them holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum
from simulator.model.configuration_gptfluence import METRIC_RANGES, GPTfluenceConfig, scale_of
from simulator.model.curricula import visit_shares
from simulator.model.dynamics import EncodedExamples, SimulationInputs, interpolate
from simulator.model.latent import from_latent, limited, to_latent
from simulator.model.memory_dynamics import MemoryDynamics
from simulator.model.modeling_gptfluence import GPTfluenceSimulator

POOL, TESTS, STEPS, WIDTH = 7, 4, 6, 5
softplus = torch.nn.functional.softplus
MakeConfig = Callable[..., GPTfluenceConfig]
MakeModel = Callable[..., GPTfluenceSimulator]
MakeCurricula = Callable[..., list[Curriculum]]


def slow_trajectory(
    dynamics: MemoryDynamics,
    curriculum: Curriculum,
    rates: Sequence[float],
    pool: np.ndarray,
    test: np.ndarray,
    seen: Sequence[int],
    initial: np.ndarray,
) -> np.ndarray:
    """The formulas of the module, one step and one test example at a time: `[M, T + 1]`."""
    b = {name: value.double().numpy() for name, value in dynamics.named_buffers()}

    def latent(value: float) -> float:
        return math.log(math.expm1(max(value, 1e-3))) if dynamics.scale.latent == "log-odds" else value

    def value(latent: float) -> float:
        _, low, high = dynamics.scale
        return math.log1p(math.exp(latent)) if dynamics.scale.latent == "log-odds" else min(max(latent, low), high)

    def limited(effect: float, limit: float) -> float:
        if abs(effect) <= limit:
            return effect
        return math.copysign(limit + limit * math.tanh((abs(effect) - limit) / limit), effect)

    def psi(vector: np.ndarray, side: str) -> np.ndarray:
        found = (vector / np.linalg.norm(vector) - b["encoder_mean"]) @ b[f"{side}_projection"]
        return found - b["pool_centre"] if side == "train" else found

    phi = np.zeros((len(test), len(curriculum) + 1))
    for at, place in enumerate(seen):
        first = latent(initial[at])
        if place >= 0:
            curve, w, limit = b["baseline"][:, place], b["weights"][place], b["limit"][place]
        else:
            own = psi(test[at], "test")
            coefficients = np.concatenate([[1.0, first], own]) @ b["curve_coefficients"]
            curve = first + coefficients.clip(*b["curve_range"]) @ b["curve_basis"]
            w, limit = np.concatenate([[1.0], own]) @ b["response"], b["unseen_limit"]
        filters = [(rho, kappa) for rho in b["decays"] for kappa in b["fade_rates"]]
        pairs = [(momentum, curvature) for momentum in b["momenta"] for curvature in b["curvatures"]]
        m, v, n = ([np.zeros(b["train_projection"].shape[1]) for _ in each] for each in (filters, pairs, pairs))
        tau, s = 0.0, []
        differ = trained = 0.0
        for t in range(len(curriculum) + 1):
            if t > 0:
                share = rates[t - 1] / b["reference_rate"]
                x = np.mean([psi(pool[i], "train") for i in curriculum[t - 1]], axis=0)
                m = [
                    rho * old + math.exp(-kappa * min(tau, b["tau"][-1])) * share * x
                    for (rho, kappa), old in zip(filters, m, strict=True)
                ]
                for pair, (momentum, curvature) in enumerate(pairs):
                    most = (1 + momentum) / (1 - momentum)
                    left = math.exp(-curvature * share / most)
                    pull = most * (1 - left) / share if share else curvature
                    v[pair] = momentum * v[pair] + (1 - momentum) * (x - pull * n[pair])
                    n[pair] = n[pair] + share * v[pair]
                tau += share
                usual = b["tau"][t] - b["tau"][t - 1] if t < len(b["tau"]) else 0.0
                differ, trained = differ + abs(share - usual), trained + usual
            foreign = differ / trained if trained else (1.0 if differ else 0.0)
            match = 1 - min(max((foreign - 1e-4) / 0.25, 0.0), 1.0)
            scaled = np.concatenate([old / scale for old, scale in zip([*m, *n], b["state_scale"], strict=True)])
            shrinkage = np.interp(tau, b["tau"], b["shrinkage"])
            s.append(np.interp(tau, b["tau"], curve) + shrinkage * match * limited(w @ scaled, limit))
        offset = first - s[0] if place >= 0 else 0.0
        phi[at] = [initial[at], *(value(each + b["carry"] * offset) for each in s[1:])]
    return phi


@pytest.fixture(params=["loss", "bleu"])
def dynamics(request: pytest.FixtureRequest, make_config: MakeConfig, make_model: MakeModel) -> MemoryDynamics:
    made = make_model(make_config("memory", decays=[0.0, 0.7, 1.0], metric=request.param)).dynamics
    assert isinstance(made, MemoryDynamics)
    return made


@pytest.mark.parametrize("seen", [[0, 1, 2, 3], [3, 0], [-1, -1, -1], [2, -1, 0, -1, 1]])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_forward_equals_the_formulas(
    dynamics: MemoryDynamics, make_curricula: MakeCurricula, seen: list[int], batch: int
) -> None:
    rng = np.random.default_rng(batch)
    pool, test = rng.normal(size=(POOL, WIDTH)), rng.normal(size=(len(seen), WIDTH))
    curricula = make_curricula(batch, 3, STEPS, POOL, batch)
    # The first run's schedule is the one trained on, the second's is near it, the third's is another.
    usual = np.diff(dynamics.tau.double().numpy()) * float(dynamics.reference_rate)
    rates = np.stack([usual, usual * rng.uniform(0.9, 1.15, size=STEPS), rng.uniform(1e-4, 1e-3, size=STEPS)])
    initial = rng.uniform(1, 2, size=len(seen))
    inputs = SimulationInputs(
        visit_shares(curricula, range(POOL)),
        torch.from_numpy(rates).float(),
        EncodedExamples(*(torch.from_numpy(array).float() for array in (pool, test)), torch.tensor(seen)),
        torch.from_numpy(initial).float()[None, :, None],
    )
    found = dynamics.trajectories(inputs)
    for run, curriculum in enumerate(curricula):
        wanted = slow_trajectory(dynamics, curriculum, rates[run], pool, test, seen, initial)
        np.testing.assert_allclose(found[run].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_simulate_equals_the_formulas(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory"))
    curriculum = make_curricula(0, 1, STEPS, POOL)[0]
    pool, test = model.pool_vectors.double().numpy(), model.test_vectors.double().numpy()
    initial = np.array([0.05, 1.0, 2.0, 0.5])
    rates = model.config.learning_rate
    wanted = slow_trajectory(model.dynamics, curriculum, rates, pool, test, range(TESTS), initial)
    found = model.simulate(curriculum, initial=initial).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seen", [[0, 1, 2, 3], [-1, -1, -1, -1], [0, -1, 2, -1]])
def test_step_zero_is_the_given_first_value(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula, seen: list[int]
) -> None:
    model = make_model(make_config("memory"))
    initial = torch.tensor([[0.3, 1.7, 9.0, 2.0], [0.1, 0.2, 0.3, 0.4]]).unsqueeze(-1)
    found = model.trajectories(
        visit_shares(make_curricula(1, 2, STEPS, POOL), range(POOL)),
        torch.full((2, STEPS), 1e-3),
        model.pool_vectors,
        model.test_vectors,
        torch.tensor(seen),
        initial,
    )
    torch.testing.assert_close(found[..., :1], initial)


def test_without_a_first_value_a_seen_example_starts_at_its_own_mean_curve(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory"))
    found = model.simulate(make_curricula(1, 1, STEPS, POOL)[0])
    torch.testing.assert_close(found[:, 0], softplus(model.dynamics.baseline[0]))


def test_an_unseen_example_needs_its_first_value(dynamics: MemoryDynamics) -> None:
    with pytest.raises(ValueError, match="initial"):
        dynamics.trajectories(
            SimulationInputs(
                torch.full((1, 3, POOL), 1 / POOL),
                torch.ones(1, 3),
                EncodedExamples(torch.zeros(POOL, WIDTH), torch.zeros(1, WIDTH), torch.tensor([-1])),
            )
        )


@given(
    metric=st.sampled_from(list(METRIC_RANGES)),
    curriculum=st.lists(st.lists(st.integers(0, POOL - 1), min_size=1, max_size=5), min_size=1, max_size=60),
    rate=st.floats(0, 1e3),
    size=st.floats(1e-3, 1e6),
    initial=st.lists(st.floats(0, 1), min_size=TESTS, max_size=TESTS),
    unseen=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_curriculum_or_rate_leaves_the_range_of_the_metric_or_blows_up(
    make_config: MakeConfig,
    make_model: MakeModel,
    metric: str,
    curriculum: Curriculum,
    rate: float,
    size: float,
    initial: list[float],
    unseen: bool,
    seed: int,
) -> None:
    model = make_model(make_config("memory", metric=metric), seed)
    dynamics = model.dynamics
    dynamics.weights.mul_(size)
    dynamics.response.mul_(size)
    dynamics.curve_coefficients.mul_(size)
    dynamics.limit.fill_(2.0)
    dynamics.unseen_limit.fill_(2.0)
    dynamics.curve_range.copy_(dynamics.curve_range / 50)
    first = torch.tensor(initial) * (METRIC_RANGES[metric][1] or 12.0)
    found = model.trajectories(
        visit_shares([curriculum], range(POOL)),
        torch.full((1, len(curriculum)), rate),
        model.pool_vectors,
        model.test_vectors,
        torch.full((TESTS,), -1) if unseen else torch.arange(TESTS),
        first.view(1, -1, 1),
    )
    low, high = METRIC_RANGES[metric]
    assert torch.isfinite(found).all()
    assert found.min() >= low
    # An effect is limited to 4, a curve to what the seen have: nothing is much larger than what was ever seen.
    curves = dynamics.curve_basis.abs().sum(0).max() if unseen else dynamics.baseline.abs().max()
    assert found.max() <= (12 + 4 + 4 + curves + dynamics.baseline.abs().max() + 8 if high is None else high)


@given(effect=st.floats(-1e6, 1e6), limit=st.floats(0, 1e3))
def test_an_effect_is_itself_up_to_the_limit_and_at_most_twice_that(effect: float, limit: float) -> None:
    found = limited(torch.tensor(effect, dtype=torch.float64), torch.tensor(limit, dtype=torch.float64)).item()
    assert abs(found) <= 2 * limit * (1 + 1e-9) + 1e-300
    assert found == effect if abs(effect) <= limit else found * effect >= 0 and abs(found) >= limit * (1 - 1e-12)


@given(value=st.floats(1e-3, 30), metric=st.sampled_from(list(METRIC_RANGES)))
def test_a_latent_is_read_back(value: float, metric: str) -> None:
    value = min(value, METRIC_RANGES[metric][1] or value)
    held = torch.tensor(value, dtype=torch.float64)
    assert from_latent(to_latent(held, scale_of(metric)), scale_of(metric)).item() == pytest.approx(value, rel=1e-9)


def test_batches_of_the_whole_pool_leave_the_mean_curve(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model(make_config("memory"))
    model.dynamics.pool_centre.copy_(
        model.dynamics.train_components(model.pool_vectors).mean(0) + model.dynamics.pool_centre
    )
    found = model.simulate([list(range(POOL))] * STEPS)
    torch.testing.assert_close(found.T, softplus(model.dynamics.baseline), rtol=1e-5, atol=1e-5)


def test_half_the_learning_rate_goes_half_as_far_along_the_mean_curve(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model(make_config("memory", learning_rate=[1e-3] * STEPS))
    model.dynamics.weights.zero_()
    curriculum = [[0, 1]] * STEPS
    baseline = model.dynamics.baseline
    found = to_latent(model.simulate(curriculum, learning_rate=[5e-4] * STEPS).T, scale_of("loss"))
    torch.testing.assert_close(found[0::2], baseline[: STEPS // 2 + 1])
    torch.testing.assert_close(found[1::2], (baseline[: STEPS // 2] + baseline[1 : STEPS // 2 + 1]) / 2)


def test_every_batch_twice_at_half_the_rate_leaves_the_same_behind_where_nothing_is_forgotten(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory", decays=[1.0], fade_rates=[0.0], momenta=[0.0], curvatures=[0.0]))
    curriculum = make_curricula(4, 1, STEPS, POOL)[0]
    rates = torch.tensor([model.config.learning_rate])
    once, twice = (
        visit_shares([[batch for batch in curriculum for _ in range(times)]], range(POOL)) for times in (1, 2)
    )
    found = model.dynamics.states(twice, rates.repeat_interleave(2, dim=1) / 2, model.pool_vectors)
    wanted = model.dynamics.states(once, rates, model.pool_vectors)
    torch.testing.assert_close(found[:, ::2], wanted, rtol=1e-5, atol=1e-5)


def test_under_a_foreign_schedule_the_mean_curve_is_what_is_left(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory"))
    one, other = make_curricula(8, 2, STEPS, POOL)

    def difference(factor: float) -> float:
        rates = [factor * rate for rate in model.config.learning_rate]
        pair = [model.simulate(curriculum, learning_rate=rates) for curriculum in (one, other)]
        return float((pair[0] - pair[1]).abs().max())

    assert difference(1.0) > difference(1.1) > difference(1.2) > 0
    assert difference(0.5) == difference(2.0) == 0


def test_all_rates_times_ten_is_another_unit_only_if_the_reference_is_too(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory"))
    curriculum = make_curricula(6, 1, STEPS, POOL)[0]
    before = model.simulate(curriculum)
    rates = [10 * rate for rate in model.config.learning_rate]
    assert not torch.allclose(model.simulate(curriculum, learning_rate=rates), before)
    model.dynamics.reference_rate.mul_(10)
    torch.testing.assert_close(model.simulate(curriculum, learning_rate=rates), before)


def test_past_the_end_of_what_was_trained_on_the_mean_curve_stays(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model(make_config("memory"))
    model.dynamics.weights.zero_()
    found = model.simulate([[0, 1]] * 30, learning_rate=[1e-3] * 30).T
    torch.testing.assert_close(found[-1], softplus(model.dynamics.baseline[-1]))


def test_runs_trained_on_may_begin_with_updates_of_rate_zero(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory", learning_rate=[0.0, 0.0, 1e-3, 1e-3, 5e-4, 0.0]))
    found = model.simulate(make_curricula(7, 1, STEPS, POOL)[0])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:, 0], softplus(model.dynamics.baseline[0]))


@given(
    gaps=st.lists(st.floats(0.01, 3), min_size=0, max_size=6),
    at=st.lists(st.floats(-5, 20), min_size=1, max_size=5),
    seed=st.integers(0, 2**31 - 1),
)
def test_interpolate_equals_numpy(gaps: list[float], at: list[float], seed: int) -> None:
    grid = np.concatenate([[0.0], np.cumsum(gaps)])
    values = np.random.default_rng(seed).normal(size=(3, len(grid)))
    found = interpolate(*(torch.from_numpy(array) for array in (grid, values, np.array(at)))).numpy()
    wanted = np.stack([np.interp(at, grid, row) for row in values])
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_interpolate_keeps_the_shape_of_the_places() -> None:
    grid, values = torch.arange(4.0), torch.arange(8.0).view(4, 2).T
    found = interpolate(grid, values, torch.full((3, 5), 1.5))
    assert found.shape == (2, 3, 5)
    torch.testing.assert_close(found[:, 2, 4], torch.tensor([3.0, 4.0]))
