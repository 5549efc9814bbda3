"""Derivatives equal differences, and leaving out equals simulating without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from simulator.attribution import leave_out, visit_derivatives
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.what_if import WhatIf

CURRICULUM = [[0, 1], [2, 3], [4, 0, 2], [5, 6], [1, 2], [3, 3]]
INITIAL = [1.0, 2.0, 0.5, 3.0]
KINDS = {
    "memory": ("memory", {}),
    "memory, unseen": ("memory", {}),
    "memory beyond its limit": ("memory", {}),
    "memory of accuracy": ("memory", {"metric": "accuracy"}),
    "memory first measured at 2": ("memory", {"first_step": 2}),
    "markov": ("markov", {}),
    "markov mlp of order 2": ("markov", {"order": 2, "projection": "mlp"}),
    "markov every 4 updates from 1": ("markov", {"stride": 4, "first_step": 1}),
}


@pytest.fixture(params=list(KINDS))
def run(
    request: pytest.FixtureRequest,
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator],
) -> WhatIf:
    dynamics, changes = KINDS[request.param]
    model = make_model(make_config(dynamics, **changes)).double()
    if dynamics == "memory":
        model.dynamics.weights.mul_(0.3)
    if "limit" in request.param:
        model.dynamics.limit.fill_(0.1)
    if "accuracy" in request.param:
        model.dynamics.baseline.mul_(0.02).add_(0.4)
        model.dynamics.weights.mul_(0.15)
    if "unseen" in request.param:
        model.config.test_keys = ["of no example"] * 4
    made = model.what_if(CURRICULUM, initial=[[value] * model.config.order for value in INITIAL])
    if "unseen" in request.param:
        made.situation.examples.seen.fill_(-1)
    return made.reweigh({2: 0.7, 5: 1.8})


def outcome(run: WhatIf) -> tuple[np.ndarray, np.ndarray]:
    change = run.simulate().double().numpy()
    change = change[:, 1:] - change[:, :1]
    return change[:, -1], change.mean(1)


def reweighed(run: WhatIf, step: int, place: int, by: float) -> WhatIf:
    weights = [list(batch) for batch in run.weights]
    weights[step][place] += by
    return WhatIf(run.situation, run.curriculum, tuple(map(tuple, weights)), run.learning_rate)


def test_derivatives_equal_differences(run: WhatIf) -> None:
    found = visit_derivatives(run)
    assert found.steps == (1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6)
    assert found.pool_ids == tuple(key for batch in CURRICULUM for key in batch)
    assert found.test_ids == tuple(run.situation.test_ids)
    at, size = 0, 1e-2
    scale = found.whole.abs().max().item()
    assert scale > 1e-3
    for step, batch in enumerate(run.curriculum):
        for place in range(len(batch)):
            up, down = (outcome(reweighed(run, step, place, by)) for by in (size, -size))
            for derivative, more, less in zip((found.final, found.whole), up, down, strict=True):
                np.testing.assert_allclose(derivative[at], (more - less) / (2 * size), rtol=5e-3, atol=3e-3 * scale)
            at += 1


def test_only_the_wanted_test_examples(run: WhatIf) -> None:
    ids = run.situation.test_ids
    every, few = visit_derivatives(run), visit_derivatives(run, [ids[3], ids[0]])
    assert few.test_ids == (ids[3], ids[0])
    torch.testing.assert_close(few.final, every.final[:, [3, 0]])
    torch.testing.assert_close(few.whole, every.whole[:, [3, 0]])


def test_leaving_out_equals_simulating_without(run: WhatIf) -> None:
    found = leave_out(run, [0, 2, 3], run.situation.test_ids[1:3])
    assert found.pool_ids == (0, 2, 3)
    with_it = run.simulate()
    for at, key in enumerate(found.pool_ids):
        without = run.drop([key]).simulate()
        torch.testing.assert_close(found.final[at], (with_it - without)[1:3, -1])
        torch.testing.assert_close(found.whole[at], (with_it - without)[1:3, 1:].mean(1))


def test_what_is_unknown_is_refused(run: WhatIf) -> None:
    with pytest.raises(ValueError, match="test example 99 is not among"):
        visit_derivatives(run, [99])
    with pytest.raises(ValueError, match="example 99 is not in the pool"):
        leave_out(run, [99])
