"""A batch without examples makes no update: a run with some simulates as the run without those steps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.attribution.effects import visit_derivatives
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members, shares_between, visit_shares
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training.markov_data import MarkovData, rollout, row_errors, triple_errors

POOL, TESTS, STEPS = 7, 4, 6
RATE = 1e-3
CURRICULUM = [[0, 1], [2, 3], [4, 0], [5, 6], [1, 2], [3, 3]]
INITIAL = [1.0, 2.0, 0.5, 3.0]
MakeConfig = Callable[..., GPTfluenceConfig]
MakeModel = Callable[[GPTfluenceConfig], GPTfluenceSimulator]


@pytest.fixture(params=["memory", "markov", "table"])
def model(request: pytest.FixtureRequest, make_config: MakeConfig, make_model: MakeModel) -> GPTfluenceSimulator:
    """Of runs at a constant rate, so that a shorter run has the schedule trained on, too."""
    more: dict[str, object] = {"learning_rate": [RATE] * STEPS}
    if request.param == "table":
        more |= {"projection": "table", "encoder_width": 1}
    made = make_model(make_config("memory" if request.param == "memory" else "markov", **more))
    if request.param == "memory":
        made.dynamics.tau.copy_(torch.arange(STEPS + 1.0))
        made.dynamics.reference_rate.fill_(RATE)
    if request.param == "table":
        made.pool_vectors.copy_(torch.arange(POOL).unsqueeze(1))
        made.test_vectors.copy_(torch.arange(TESTS).unsqueeze(1))
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(full=st.lists(st.booleans(), min_size=STEPS, max_size=STEPS), seed=st.integers(0, 9))
def test_a_run_with_empty_batches_is_the_run_without_those_steps(
    model: GPTfluenceSimulator, full: list[bool], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    curriculum = [rng.integers(0, POOL, rng.integers(1, 4)).tolist() if there else [] for there in full]
    shorter = [batch for batch in curriculum if batch]
    found = model.simulate(curriculum, initial=INITIAL, learning_rate=[RATE] * STEPS)
    wanted = model.simulate(shorter, initial=INITIAL, learning_rate=[RATE] * len(shorter))
    # After each step, as many updates are made as there were batches with examples.
    torch.testing.assert_close(found + 0, (wanted + 0)[:, [0, *np.cumsum(full).tolist()]])


def test_weights_of_zero_make_an_empty_batch(model: GPTfluenceSimulator) -> None:
    run = model.what_if(CURRICULUM, initial=INITIAL)
    torch.testing.assert_close(run.reweigh({2: 0.0, 3: 0.0}).simulate(), run.drop([2, 3]).simulate())


def test_several_runs_at_once_are_each_alone(model: GPTfluenceSimulator) -> None:
    curricula = [CURRICULUM, [[], *CURRICULUM[1:]], [*CURRICULUM[:3], [], [], CURRICULUM[5]]]
    visits = visit_shares(curricula, range(POOL)).to(model.pool_vectors)
    initial = torch.tensor([INITIAL]).unsqueeze(-1)
    together = model.trajectories(visits, initial=initial)
    for at in range(len(curricula)):
        torch.testing.assert_close(together[at], model.trajectories(visits[at : at + 1], initial=initial)[0])


def test_visits_beside_an_empty_batch_have_the_derivatives_of_the_shorter_run(model: GPTfluenceSimulator) -> None:
    rates = [RATE] * STEPS
    run = model.what_if([*CURRICULUM[:2], [], [], *CURRICULUM[4:]], initial=INITIAL, learning_rate=rates)
    shorter = model.what_if([*CURRICULUM[:2], *CURRICULUM[4:]], initial=INITIAL, learning_rate=rates[:4])
    torch.testing.assert_close(visit_derivatives(run).final, visit_derivatives(shorter).final)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=8), stride=st.integers(1, 4), seed=st.integers(0, 99))
def test_shares_of_an_interval_are_the_mean_of_the_batches_that_have_examples(
    sizes: list[int], stride: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    curriculum = [rng.integers(0, POOL, size).tolist() for size in sizes]
    step = [*range(0, len(sizes), stride), len(sizes)]
    wanted = np.zeros((len(step) - 1, POOL))
    for interval, (begin, end) in enumerate(pairwise(step)):
        batches = [batch for batch in curriculum[begin:end] if batch]
        for batch in batches:
            for key in batch:
                wanted[interval, key] += 1 / (len(batch) * len(batches))
    ids = list(range(POOL))
    np.testing.assert_allclose(Members.between([curriculum], ids, step).spread(POOL)[0], wanted, atol=1e-6)
    np.testing.assert_allclose(shares_between(visit_shares([curriculum], ids), step)[0], wanted, atol=1e-6)


def test_a_measured_interval_without_examples_keeps_its_value(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model(make_config("markov", stride=2))
    found = model.simulate([[0, 1], [2], [], [], [3], []], initial=INITIAL)
    torch.testing.assert_close(found[:, 4] + 0, found[:, 2] + 0)
    wanted = model.simulate([[0, 1], [2], [3], [3]], initial=INITIAL, learning_rate=[RATE] * 4)
    torch.testing.assert_close(found[:, [0, 2, 6]] + 0, wanted[:, [0, 2, 4]] + 0)


def test_markov_is_trained_on_what_it_simulates(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model(make_config("markov"))
    curricula = [[[0, 1], [], [2], [3, 4], [], [5]], CURRICULUM]
    values = torch.rand(2, TESTS, STEPS + 1)
    members = Members.between(curricula, list(range(POOL)), range(STEPS + 1))
    data = MarkovData(members, values, model.pool_vectors, model.test_vectors, 2)
    visits = visit_shares(curricula, range(POOL)).to(model.pool_vectors)
    with torch.no_grad():
        wanted = model.trajectories(visits, initial=values[..., :1])
        torch.testing.assert_close(rollout(model.dynamics, data, torch.arange(2)), wanted)
        kept = (values[0, :, 1] - values[0, :, 2]).square()
        torch.testing.assert_close(row_errors(model.dynamics, data, torch.tensor([1])), kept.sum())
        torch.testing.assert_close(triple_errors(model.dynamics, data, torch.tensor([TESTS + 3])), kept[3])
