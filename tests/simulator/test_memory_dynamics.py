"""`dynamics="memory"` agrees with a loop over its formulas; what follows exactly from them holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum
from simulator.configuration_gptfluence import GPTfluenceConfig
from simulator.memory_dynamics import MemoryDynamics, interpolate
from simulator.modeling_gptfluence import GPTfluenceSimulator, visit_shares

POOL, TESTS, STEPS, WIDTH = 7, 4, 6, 5
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
    """The formulas of the module, one step and one test example at a time: `[T + 1, M]`."""
    b = {name: value.double().numpy() for name, value in dynamics.named_buffers()}

    def psi(vector: np.ndarray) -> np.ndarray:
        return (vector - b["encoder_mean"]) @ b["projection"]

    phi = np.zeros((len(curriculum) + 1, len(test)))
    for at, place in enumerate(seen):
        if place >= 0:
            curve, w = b["baseline"][:, place], b["weights"][place]
        else:
            own = psi(test[at])
            coefficients = np.concatenate([[1.0, initial[at]], own]) @ b["curve_coefficients"]
            curve = initial[at] + coefficients @ b["curve_basis"]
            w = np.concatenate([[1.0], own]) @ b["response"]
        m = [np.zeros(b["projection"].shape[1]) for _ in b["decays"]]
        tau = 0.0
        for t in range(len(curriculum) + 1):
            if t > 0:
                share = rates[t - 1] / b["reference_rate"]
                u = share * np.mean([psi(pool[i]) - b["pool_centre"] for i in curriculum[t - 1]], axis=0)
                m = [rho * old + u for rho, old in zip(b["decays"], m, strict=True)]
                tau += share
            scaled = np.concatenate([old / s for old, s in zip(m, b["state_scale"], strict=True)])
            phi[t, at] = np.interp(tau, b["tau"], curve) + w @ scaled
        offset = initial[at] - phi[0, at]
        phi[0, at] += offset
        phi[1:, at] += b["carry"] * offset
    return phi


@pytest.fixture
def dynamics(make_config: MakeConfig, make_model: MakeModel) -> MemoryDynamics:
    made = make_model(make_config("memory", decays=[0.0, 0.7, 1.0])).dynamics
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
    rates, initial = rng.uniform(1e-4, 1e-3, size=(3, STEPS)), rng.uniform(1, 2, size=len(seen))
    found = dynamics(
        visit_shares(curricula, range(POOL)),
        *(torch.from_numpy(array).float() for array in (rates, pool, test)),
        torch.tensor(seen),
        torch.from_numpy(initial).float().unsqueeze(0),
    )
    for run, curriculum in enumerate(curricula):
        wanted = slow_trajectory(dynamics, curriculum, rates[run], pool, test, seen, initial)
        np.testing.assert_allclose(found[run].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_simulate_equals_the_formulas_within_the_range_of_the_metric(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory"))
    curriculum = make_curricula(0, 1, STEPS, POOL)[0]
    pool, test = model.pool_vectors.double().numpy(), model.test_vectors.double().numpy()
    initial = np.array([0.05, 1.0, 2.0, 0.5])
    rates = model.config.learning_rate
    wanted = slow_trajectory(model.dynamics, curriculum, rates, pool, test, range(TESTS), initial)
    assert wanted.min() < 0
    found = model.simulate(curriculum, initial=initial).numpy()
    np.testing.assert_allclose(found, wanted.clip(min=0).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seen", [[0, 1, 2, 3], [-1, -1, -1, -1], [0, -1, 2, -1]])
def test_step_zero_is_the_given_first_value(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula, seen: list[int]
) -> None:
    model = make_model(make_config("memory"))
    initial = torch.tensor([[[0.3, 1.7, 9.0, 2.0]], [[0.1, 0.2, 0.3, 0.4]]])
    found = model.trajectories(
        visit_shares(make_curricula(1, 2, STEPS, POOL), range(POOL)),
        torch.full((2, STEPS), 1e-3),
        model.pool_vectors,
        model.test_vectors,
        torch.tensor(seen),
        initial,
    )
    torch.testing.assert_close(found[:, 0], initial[:, 0])


def test_without_a_first_value_a_seen_example_starts_at_its_own_mean_curve(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory"))
    found = model.simulate(make_curricula(1, 1, STEPS, POOL)[0])
    torch.testing.assert_close(found[:, 0], model.dynamics.baseline[0])


def test_an_unseen_example_needs_its_first_value(dynamics: MemoryDynamics) -> None:
    with pytest.raises(ValueError, match="initial"):
        dynamics.mean_curve(torch.zeros(1, WIDTH), torch.tensor([-1]), None)


@pytest.mark.parametrize(
    ("metric", "low", "high"),
    [("loss", 0.0, None), ("accuracy", 0.0, 1.0), ("bleu", 0.0, 100.0), ("rougeL", 0.0, 1.0)],
)
def test_predictions_stay_within_the_range_of_the_metric(
    make_config: MakeConfig,
    make_model: MakeModel,
    make_curricula: MakeCurricula,
    metric: str,
    low: float,
    high: float | None,
) -> None:
    model = make_model(make_config("memory", metric=metric))
    model.dynamics.weights.mul_(1000)
    model.dynamics.weights[1] = -model.dynamics.weights[0]
    found = model.simulate(make_curricula(2, 1, 40, POOL)[0], learning_rate=[1e-3] * 40)
    assert found.min() == low
    assert found.max() == high if high is not None else found.max() > 100


def test_batches_of_the_whole_pool_leave_the_mean_curve(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model(make_config("memory"))
    model.dynamics.pool_centre.copy_(model.dynamics.reduce(model.pool_vectors).mean(0))
    found = model.simulate([list(range(POOL))] * STEPS)
    torch.testing.assert_close(found.T, model.dynamics.baseline, rtol=1e-5, atol=1e-5)


def test_half_the_learning_rate_goes_half_as_far_along_the_mean_curve(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model(make_config("memory", learning_rate=[1e-3] * STEPS))
    model.dynamics.weights.zero_()
    curriculum = [[0, 1]] * STEPS
    baseline = model.dynamics.baseline
    found = model.simulate(curriculum, learning_rate=[5e-4] * STEPS).T
    torch.testing.assert_close(found[0::2], baseline[: STEPS // 2 + 1])
    torch.testing.assert_close(found[1::2], (baseline[: STEPS // 2] + baseline[1 : STEPS // 2 + 1]) / 2)


def test_every_batch_twice_at_half_the_rate_is_the_same_run_where_nothing_is_forgotten(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory", decays=[1.0]))
    curriculum = make_curricula(4, 1, STEPS, POOL)[0]
    rates = model.config.learning_rate
    doubled = [batch for batch in curriculum for _ in range(2)]
    halved = [rate / 2 for rate in rates for _ in range(2)]
    found = model.simulate(doubled, learning_rate=halved)[:, ::2]
    torch.testing.assert_close(found, model.simulate(curriculum), rtol=1e-5, atol=1e-5)


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
    torch.testing.assert_close(found[-1], model.dynamics.baseline[-1])


def test_runs_trained_on_may_begin_with_updates_of_rate_zero(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula
) -> None:
    model = make_model(make_config("memory", learning_rate=[0.0, 0.0, 1e-3, 1e-3, 5e-4, 0.0]))
    found = model.simulate(make_curricula(7, 1, STEPS, POOL)[0])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:, 0], model.dynamics.baseline[0])


@given(
    gaps=st.lists(st.floats(0.01, 3), min_size=0, max_size=6),
    at=st.lists(st.floats(-5, 20), min_size=1, max_size=5),
    seed=st.integers(0, 2**31 - 1),
)
def test_interpolate_equals_numpy(gaps: list[float], at: list[float], seed: int) -> None:
    grid = np.concatenate([[0.0], np.cumsum(gaps)])
    values = np.random.default_rng(seed).normal(size=(len(grid), 3))
    found = interpolate(*(torch.from_numpy(array) for array in (grid, values, np.array(at)))).numpy()
    wanted = np.stack([np.interp(at, grid, column) for column in values.T], axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_interpolate_keeps_the_shape_of_the_places() -> None:
    grid, values = torch.arange(4.0), torch.arange(8.0).view(4, 2)
    found = interpolate(grid, values, torch.full((3, 5), 1.5))
    assert found.shape == (3, 5, 2)
    torch.testing.assert_close(found[2, 4], torch.tensor([3.0, 4.0]))
