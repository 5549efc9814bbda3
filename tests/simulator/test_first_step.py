"""Runs that were first measured after the first update, as imported ones are: the first value is that of step 1."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from simulator.evaluation.simulated import Simulated
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import measured_steps, visit_shares
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training import TrainSettings, train_simulator

POOL, TESTS, STEPS, RUNS = 7, 4, 6, 8
MakeConfig = Callable[..., GPTfluenceConfig]
MakeModel = Callable[..., GPTfluenceSimulator]
MakeCurricula = Callable[..., list[Curriculum]]


@pytest.fixture
def from_step_1(make_curricula: MakeCurricula, make_dynamics: Callable[..., Dynamics]) -> Callable[..., Dynamics]:
    """Runs measured at the given steps, whose loss is a fixed response to all batches so far."""

    def make(step: list[int]) -> Dynamics:
        curricula = make_curricula(0, RUNS, STEPS, POOL)
        shares = visit_shares(curricula, range(POOL)).numpy()
        pushed = (shares.cumsum(1) @ np.random.default_rng(1).normal(size=(POOL, TESTS)) / 10).swapaxes(1, 2)
        values = 2 + np.concatenate([np.zeros((RUNS, TESTS, 1)), pushed], axis=-1)
        return make_dynamics(curricula, values[..., step], POOL, step=step)

    return make


@given(steps=st.integers(1, 20), stride=st.integers(1, 8), first=st.integers(0, 8))
def test_measured_steps_ascend_from_the_first_to_the_last(steps: int, stride: int, first: int) -> None:
    found = measured_steps(steps, stride, first)
    assert found == [*(at for at in range(steps) if at >= first and (at - first) % stride == 0), steps]


@pytest.mark.parametrize("first", [0, 1, 3])
def test_memory_starts_from_the_first_measured_value(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula, first: int
) -> None:
    model, plain = (make_model(make_config("memory", metric="bleu", first_step=at)) for at in (first, 0))
    curriculum = make_curricula(3, 1, STEPS, POOL)[0]
    unshifted = model.simulate(curriculum).numpy()
    np.testing.assert_allclose(unshifted, plain.simulate(curriculum).numpy(), rtol=1e-5)
    initial = unshifted[:, first] + [0.5, 1.0, 0.0, 2.0]
    found = model.simulate(curriculum, initial=initial).numpy()
    offset = initial - unshifted[:, first]
    for step in range(STEPS + 1):
        wanted = initial if step <= first else unshifted[:, step] + float(model.dynamics.carry) * offset
        np.testing.assert_allclose(found[:, step], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "first"), [(1, 0), (1, 1), (1, 3), (2, 1), (2, 2), (4, 1)])
def test_a_step_of_markov_spans_the_batches_between_two_measurements(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula, stride: int, first: int
) -> None:
    model = make_model(make_config("markov", stride=stride, first_step=first))
    curriculum = make_curricula(5, 1, STEPS, POOL)[0]
    initial = np.array([0.3, 1.7, 0.9, 2.0])
    found = model.simulate(curriculum, initial=initial).detach().numpy()
    factors = model.dynamics.factors(model.pool_vectors, model.test_vectors).detach().numpy()
    measured, value = measured_steps(STEPS, stride, first), initial
    np.testing.assert_allclose(found[:, : first + 1], np.repeat(initial[:, None], first + 1, axis=1), rtol=1e-5)
    for before, after in pairwise(measured):
        batches = curriculum[before:after]
        each = np.mean([[factors[:, at] for at in batch] for batch in batches], axis=(0, 1)) * 2
        value = each[0] * value + each[1]
        np.testing.assert_allclose(found[:, after], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_a_curriculum_may_end_before_the_first_measurement(
    make_config: MakeConfig, make_model: MakeModel, make_curricula: MakeCurricula, dynamics: str
) -> None:
    model = make_model(make_config(dynamics, first_step=3))
    for steps in (0, 1, 3):
        curriculum = make_curricula(2, 1, 3, POOL)[0][:steps]
        found = model.simulate(curriculum, initial=[0.5] * TESTS, learning_rate=[1e-3] * steps)
        torch.testing.assert_close(found, torch.full((TESTS, steps + 1), 0.5))


@pytest.mark.usefixtures("quick_markov")
@pytest.mark.parametrize("step", [[1, 2, 3, 4, 5, 6], [2, 4, 6], [1, 3, 5, 6]])
@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_a_simulator_learns_from_such_runs(
    from_step_1: Callable[..., Dynamics], tmp_path: object, dynamics: str, step: list[int]
) -> None:
    runs = from_step_1(step)
    settings = TrainSettings("made by hand", runs.config, dynamics=dynamics, encoder="label")
    model = train_simulator(settings, runs=runs).model
    assert (model.config.first_step, model.config.stride) == (step[0], step[1] - step[0])
    held_out = runs.split("test")
    predicted = Simulated(model).predict(held_out)
    assert predicted.shape == held_out.values.shape
    np.testing.assert_allclose(predicted[..., 0], held_out.values[..., 0], rtol=1e-5)
    simulated = model.simulate(held_out.curricula[0], initial=held_out.values[0, :, 0]).detach().numpy()
    np.testing.assert_allclose(simulated[:, step], predicted[0], rtol=1e-4)
    model.save_pretrained(tmp_path)
    again = GPTfluenceSimulator.from_pretrained(tmp_path).simulate(
        held_out.curricula[0], initial=held_out.values[0, :, 0]
    )
    np.testing.assert_allclose(again.detach().numpy(), simulated, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "words"), [([1], "measured once only"), ([1, 2, 4, 5, 6], "not measured at even steps")]
)
def test_measurements_that_are_no_dynamics_are_refused(
    from_step_1: Callable[..., Dynamics], step: list[int], words: str
) -> None:
    runs = from_step_1(step)
    with pytest.raises(DataError, match=words):
        train_simulator(TrainSettings("made by hand", runs.config, encoder="label"), runs=runs)
