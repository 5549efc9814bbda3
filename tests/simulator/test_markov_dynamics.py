"""`dynamics="markov"` agrees with eq. 4 to 8 of the paper, read one factor at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import visit_shares
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.model.modeling_gptfluence import GPTfluenceSimulator

POOL, TESTS, STEPS = 7, 4, 13
ORDERS = pytest.mark.parametrize("order", [1, 2, 3, 5, 10])
PROJECTIONS = pytest.mark.parametrize("projection", ["linear", "mlp"])


def projected(dynamics: MarkovDynamics, factor: int, vector: np.ndarray, side: str) -> np.ndarray:
    """W^T h (eq. 7, 8), or the two shared layers of the published code."""
    weights = {name: value[factor].detach().double().numpy() for name, value in dynamics.named_parameters()}
    if dynamics.projection == "linear":
        return weights["train_side" if side == "train" else "test_side"].T @ vector
    hidden = np.maximum(weights["first"].T @ vector + weights["first_bias"][0], 0)
    return weights["second"].T @ hidden + weights["second_bias"][0]


def slow_trajectory(
    dynamics: MarkovDynamics, curriculum: Curriculum, pool: np.ndarray, test: np.ndarray, history: np.ndarray
) -> np.ndarray:
    """Eq. 4 to 8 with a loop for each sum: `[M, T + 1]` from history `[M, n]`."""
    order, full = dynamics.order, dynamics.batch_size

    def factor(number: int, i: int, at: int) -> float:
        left = projected(dynamics, number, pool[i], "train")
        right = projected(dynamics, number, test[at], "test")
        return float(np.dot(left, right))

    phi = np.zeros((len(test), max(order, len(curriculum) + 1)))
    for at in range(len(test)):
        phi[at, :order] = history[at]
        for t in range(order, len(curriculum) + 1):
            batch = curriculum[t - 1]
            scale = full / len(batch)
            total = scale * sum(factor(order, i, at) for i in batch)
            for j in range(1, order + 1):
                total += scale * sum(factor(j - 1, i, at) for i in batch) * phi[at, t - j]
            phi[at, t] = total
    return phi


@ORDERS
@PROJECTIONS
@pytest.mark.parametrize("seed", [0, 1])
def test_simulate_equals_the_equations(
    order: int,
    projection: str,
    seed: int,
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[..., GPTfluenceSimulator],
    make_curricula: Callable[..., list[Curriculum]],
) -> None:
    model = make_model(make_config("markov", steps=STEPS, order=order, projection=projection), seed)
    curriculum = make_curricula(seed, 1, STEPS, POOL)[0]
    history = np.random.default_rng(seed).normal(size=(TESTS, order)).astype(np.float32)
    found = model.simulate(curriculum, initial=history).numpy()
    pool, test = model.pool_vectors.double().numpy(), model.test_vectors.double().numpy()
    wanted = slow_trajectory(model.dynamics, curriculum, pool, test, history)
    assert found.shape == (TESTS, STEPS + 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@given(
    order=st.sampled_from([1, 2, 3, 5, 10]),
    projection=st.sampled_from(["linear", "mlp"]),
    sizes=st.lists(st.integers(1, 4), max_size=14),
    batch_size=st.integers(1, 5),
    hidden=st.integers(1, 4),
    width=st.integers(1, 6),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=30)
def test_any_curriculum_of_any_shape_equals_the_equations(
    order: int, projection: str, sizes: list[int], batch_size: int, hidden: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    config = GPTfluenceConfig(
        order=order, projection=projection, hidden=hidden, encoder_width=width, batch_size=batch_size
    )
    dynamics = MarkovDynamics(config)
    dynamics.reset(scale=0.5, generator=torch.Generator().manual_seed(seed))
    # Batches of any size, an example more than once among them.
    curriculum = [rng.integers(POOL, size=size).tolist() for size in sizes]
    pool, test = rng.normal(size=(POOL, width)), rng.normal(size=(TESTS, width))
    history = rng.normal(size=(TESTS, order))
    wanted = slow_trajectory(dynamics.double(), curriculum, pool, test, history)
    visits = visit_shares([curriculum], range(POOL)).double()
    with torch.no_grad():
        [found] = dynamics(visits, torch.from_numpy(pool), torch.from_numpy(test), torch.from_numpy(history)[None])
    size = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5 * size)


@ORDERS
@PROJECTIONS
def test_forward_handles_many_runs_as_one_at_a_time(
    order: int,
    projection: str,
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[..., GPTfluenceSimulator],
    make_curricula: Callable[..., list[Curriculum]],
) -> None:
    dynamics = make_model(make_config("markov", steps=STEPS, order=order, projection=projection)).dynamics
    curricula = make_curricula(3, 3, STEPS, POOL)
    rng = np.random.default_rng(3)
    pool, test, history = rng.normal(size=(POOL, 5)), rng.normal(size=(2, 5)), rng.normal(size=(3, 2, order))
    visits = visit_shares(curricula, range(POOL))
    with torch.no_grad():
        found = dynamics(visits, *(torch.from_numpy(a).float() for a in (pool, test, history))).numpy()
    for run, curriculum in enumerate(curricula):
        wanted = slow_trajectory(dynamics, curriculum, pool, test, history[run])
        np.testing.assert_allclose(found[run], wanted, rtol=1e-4, atol=1e-5)


@PROJECTIONS
@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_batch_of_another_size_is_scaled_to_the_size_trained_on(
    projection: str,
    size: int,
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[..., GPTfluenceSimulator],
    make_curricula: Callable[..., list[Curriculum]],
) -> None:
    model = make_model(make_config("markov", steps=STEPS, projection=projection, batch_size=3))
    curriculum = make_curricula(5, 1, STEPS, POOL, batch=size)[0]
    history = np.ones((TESTS, 1), dtype=np.float32)
    pool, test = model.pool_vectors.double().numpy(), model.test_vectors.double().numpy()
    wanted = slow_trajectory(model.dynamics, curriculum, pool, test, history)
    found = model.simulate(curriculum, initial=history).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_given_twice_over_is_the_same_batch(
    make_config: Callable[..., GPTfluenceConfig], make_model: Callable[..., GPTfluenceSimulator]
) -> None:
    model = make_model(make_config("markov", steps=STEPS))
    once = [[at % POOL, (at + 1) % POOL] for at in range(STEPS)]
    twice = [batch * 2 for batch in once]
    initial = np.ones(TESTS)
    torch.testing.assert_close(model.simulate(once, initial=initial), model.simulate(twice, initial=initial))


def test_the_order_of_examples_in_a_batch_does_not_matter_but_that_of_batches_does(
    make_config: Callable[..., GPTfluenceConfig], make_model: Callable[..., GPTfluenceSimulator]
) -> None:
    model = make_model(make_config("markov", steps=STEPS))
    curriculum = [[at % POOL, (at + 2) % POOL] for at in range(STEPS)]
    initial = np.ones(TESTS)
    found = model.simulate(curriculum, initial=initial)
    turned = model.simulate([batch[::-1] for batch in curriculum], initial=initial)
    backwards = model.simulate(curriculum[::-1], initial=initial)
    torch.testing.assert_close(found, turned)
    assert not torch.allclose(found[:, -1], backwards[:, -1], atol=1e-3)


def test_reset_gives_small_weights_that_differ_between_factors(
    make_config: Callable[..., GPTfluenceConfig],
) -> None:
    dynamics = MarkovDynamics(make_config("markov", steps=STEPS, order=2, hidden=64, encoder_width=100))
    torch.manual_seed(0)
    dynamics.reset(scale=0.1)
    for parameter in dynamics.parameters():
        assert parameter.std().item() == pytest.approx(0.01, rel=0.1)
        assert not torch.equal(parameter[0], parameter[1])
