"""Section 3.3 of the paper: index vectors and order 1 are Simfluence; one step that spans the run is a datamodel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics, read_dynamics
from simulator.baselines import Simfluence
from simulator.baselines.simfluence import Kind
from simulator.encoders.index import IndexEncoder
from simulator.evaluation.simulated import Simulated
from simulator.model.configuration_gptfluence import KINDS, GPTfluenceConfig
from simulator.model.example_encoding import content_key
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training import TrainSettings, table_fit, train_simulator

ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
MakeDynamics = Callable[..., Dynamics]
MakeCurricula = Callable[..., list[Curriculum]]


def index_simulator(runs: Dynamics, kind: str) -> GPTfluenceSimulator:
    """An untrained one for these runs."""
    config = GPTfluenceConfig(
        metric=runs.metric,
        dataset_config=runs.config,
        base_model=runs.base_model,
        base_revision=runs.base_revision,
        encoder=IndexEncoder().describe(),
        pool_ids=[example.id for example in runs.pool],
        pool_keys=[content_key(example) for example in runs.pool],
        test_ids=[example.id for example in runs.test],
        test_keys=[content_key(example) for example in runs.test],
        steps=len(runs.curricula[0]),
        batch_size=runs.batch_size,
        learning_rate=runs.learning_rate[0].tolist(),
        stride=int(runs.step[1] - runs.step[0]),
        projection="table",
        kind=kind,
    )
    model = GPTfluenceSimulator(config).eval()
    model.pool_vectors.copy_(torch.from_numpy(IndexEncoder().encode(runs.pool)))
    model.test_vectors.copy_(torch.from_numpy(IndexEncoder().encode(runs.test)))
    return model


def set_factors(model: GPTfluenceSimulator, factors: torch.Tensor) -> None:
    """Give it Simfluence's `[2, N, M]` A as deviation from 1, and B, of means over a batch."""
    learned = {"linear": [0, 1], "additive": [1], "multiplicative": [0]}[model.config.kind]
    with torch.no_grad():
        model.dynamics.table.copy_(factors[learned] / model.config.batch_size)


@pytest.fixture(scope="module")
def runs(make_curricula: MakeCurricula, make_dynamics: MakeDynamics) -> Dynamics:
    """12 runs whose losses follow eq. 3 with noise."""
    rng = np.random.default_rng(0)
    pool, tests, steps = 14, 5, 12
    curricula = make_curricula(3, 12, steps, pool)
    alpha, beta = rng.normal(0, 0.03, (pool, tests)), rng.normal(0, 0.05, (pool, tests))
    values = np.empty((12, tests, steps + 1))
    values[..., 0] = rng.uniform(1, 2, tests)
    for run, curriculum in enumerate(curricula):
        for step, batch in enumerate(curriculum, start=1):
            moved = values[run, :, step - 1] * (0.97 + alpha[batch].mean(0)) + beta[batch].mean(0)
            values[run, :, step] = moved + rng.normal(0, 0.01, tests)
    return make_dynamics(curricula, values, pool)


@ALL_KINDS
@pytest.mark.parametrize("stride", [1, 4])
def test_with_the_factors_of_simfluence_it_predicts_what_simfluence_predicts(
    kind: Kind, stride: int, runs: Dynamics
) -> None:
    measured = replace(runs, step=runs.step[::stride], values=runs.values[..., ::stride])
    simfluence = Simfluence(kind, measured.split("train"), measured.split("validation"))
    model = index_simulator(measured, kind)
    set_factors(model, simfluence.fit.factors)
    held_out = measured.split("test")
    wanted = simfluence.predict(held_out)
    assert np.ptp(wanted, axis=-1).min() > 0.01
    np.testing.assert_allclose(Simulated(model).predict(held_out), wanted, rtol=1e-5, atol=1e-5)


@ALL_KINDS
def test_it_predicts_what_eq_3_says_read_one_example_at_a_time(kind: str, runs: Dynamics) -> None:
    model = index_simulator(runs, kind)
    random = np.random.default_rng(1)
    factors = random.normal(0, 0.05, (2, len(runs.pool), len(runs.test))).astype(np.float32)
    set_factors(model, torch.from_numpy(factors))
    found = model.simulate(runs.curricula[0], initial=runs.values[0, :, 0]).numpy()
    for test in range(len(runs.test)):
        value = float(runs.values[0, test, 0])
        for step, batch in enumerate(runs.curricula[0], start=1):
            alpha = sum(1 / len(batch) + factors[0, i, test] / len(batch) for i in batch) if kind != "additive" else 1.0
            beta = sum(factors[1, i, test] / len(batch) for i in batch) if kind != "multiplicative" else 0.0
            value = alpha * value + beta
            assert found[test, step] == pytest.approx(value, rel=1e-5)


def test_an_untrained_one_says_that_nothing_changes(runs: Dynamics) -> None:
    found = index_simulator(runs, "linear").simulate(runs.curricula[0], initial=runs.values[0, :, 0])
    np.testing.assert_allclose(found, np.repeat(runs.values[0, :, :1], 13, axis=1), rtol=1e-6)


@ALL_KINDS
def test_a_trained_one_is_as_good_as_the_closed_form(kind: Kind, runs: Dynamics) -> None:
    settings = TrainSettings("", runs.config, dynamics="markov", encoder="index", kind=kind)
    model = train_simulator(settings, runs=runs).model
    closed = Simfluence(kind, runs.split("train"), runs.split("validation"))
    held_out = runs.split("test")

    def error(method: Simulated | Simfluence) -> float:
        return float(np.square(method.predict(held_out)[..., 1:] - held_out.values[..., 1:]).mean())

    assert error(Simulated(model)) <= error(closed) * (1 + 1e-5)


@ALL_KINDS
def test_factors_of_order_two_are_a_ridge_regression_for_each_test_example(kind: str, runs: Dynamics) -> None:
    choice = table_fit.TableChoice(0.3, 0.2)
    data = table_fit.indexed(runs)
    [found] = table_fit.solve_tables(data, kind, 2, [choice], range(len(runs.test)))
    values, shares = runs.values.astype(float), data.shares.double().numpy()
    unit = np.mean([sum(shares[run, step, i] ** 2 for run, step in np.ndindex(12, 12) if step) for i in range(14)])
    sides = {"linear": [0, 1, 2], "additive": [2], "multiplicative": [0, 1]}[kind]
    for test in range(len(runs.test)):
        rows, wanted, scale = [], [], []
        for run, step in np.ndindex(12, 12):
            if step == 0:
                continue
            before = [values[run, test, step], values[run, test, step - 1], 1.0]
            rows.append(np.concatenate([shares[run, step] * before[side] for side in sides]))
            wanted.append(values[run, test, step + 1] - before[0])
            scale.append(before[0] ** 2)
        strength = [0.2 * unit if side == 2 else 0.3 * unit * np.mean(scale) for side in sides]
        padded = np.concatenate([rows, np.diag(np.sqrt(np.repeat(strength, 14)))])
        solution = np.linalg.lstsq(padded, np.concatenate([wanted, np.zeros(14 * len(sides))]), rcond=None)[0]
        np.testing.assert_allclose(found[sides, :, test], solution.reshape(len(sides), 14), rtol=1e-3, atol=1e-5)
        assert not found[[side for side in range(3) if side not in sides]].any()


def test_its_name_says_what_it_is(runs: Dynamics) -> None:
    names = [Simulated(index_simulator(runs, kind)).name for kind in KINDS]
    assert names == ["markov_1_index", "markov_1_additive_index", "markov_1_multiplicative_index"]


@ALL_KINDS
def test_saved_and_loaded_it_is_the_same(kind: str, runs: Dynamics, tmp_path: Path) -> None:
    model = index_simulator(runs, kind)
    set_factors(model, torch.randn(2, len(runs.pool), len(runs.test), generator=torch.Generator().manual_seed(0)))
    model.save_pretrained(tmp_path)
    loaded = GPTfluenceSimulator.from_pretrained(tmp_path)
    assert torch.equal(loaded.dynamics.table, model.dynamics.table)
    assert loaded.config.kind == kind


def test_examples_that_it_was_not_trained_on_are_refused(runs: Dynamics) -> None:
    new = replace(runs.test[0], prompt="something else")
    with pytest.raises(Exception, match="index vectors know no other examples"):
        index_simulator(runs, "linear").simulate(runs.curricula[0], test=[new], initial=[1.0])


def test_withheld_texts_are_not_needed(dataset: Path) -> None:
    read = read_dynamics(dataset, "mini_sentiment_nano", "loss")
    bare = [
        [replace(each, prompt="", target="", source={"row": str(each.id)}) for each in part]
        for part in (read.pool, read.test)
    ]
    withheld = replace(read, pool=bare[0], test=bare[1])
    settings = TrainSettings(str(dataset), read.config, dynamics="markov", encoder="index")
    model = train_simulator(settings, runs=withheld).model
    found = Simulated(model).predict(withheld.split("test"))
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0.1


POOL, SUBSET, STEPS, RUNS, TESTS = 10, 6, 3, 64, 3


@pytest.fixture(scope="module")
def subsets(make_dynamics: MakeDynamics) -> tuple[Dynamics, np.ndarray]:
    """Runs on subsets of the pool, measured before and after, and which examples were in each: `[R, N]`."""
    rng = np.random.default_rng(5)
    curricula, inside = [], np.zeros((RUNS, POOL))
    for run in range(RUNS):
        subset = rng.choice(POOL, SUBSET, replace=False)
        inside[run, subset] = 1
        curricula.append([subset[2 * step : 2 * step + 2].tolist() for step in range(STEPS)])
    effect = rng.normal(0, 0.1, (POOL, TESTS))
    first = np.broadcast_to([1.0, 1.5, 2.0], (RUNS, TESTS))
    last = first + inside @ effect + rng.normal(0, 0.02, (RUNS, TESTS))
    return make_dynamics(curricula, np.stack([first, last], axis=-1), POOL, step=[0, STEPS]), inside


def test_one_step_that_spans_the_run_is_linear_in_which_examples_were_in_it(
    subsets: tuple[Dynamics, np.ndarray],
) -> None:
    runs, inside = subsets
    training = inside[[run for run in range(RUNS) if run % 32 not in (3, 4, 10, 16, 19, 22, 28)]]
    change = runs.split("train").values[..., 1] - runs.split("train").values[..., 0]
    datamodel = np.linalg.lstsq(training, change, rcond=None)[0]
    model = index_simulator(runs, "additive")
    # A batch's share is 1 / SUBSET for each example of the subset; factors are summed over `batch_size` of them.
    with torch.no_grad():
        model.dynamics.table.copy_(torch.from_numpy(datamodel[None] * SUBSET / runs.batch_size))
    held_out = runs.split("test")
    members = inside[[int(run) for run in held_out.runs]]
    found = Simulated(model).predict(held_out)[..., 1]
    np.testing.assert_allclose(found, held_out.values[..., 0] + members @ datamodel, rtol=1e-5, atol=1e-5)


def test_trained_on_whole_runs_it_finds_the_linear_regression(
    subsets: tuple[Dynamics, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, inside = subsets
    monkeypatch.setattr(table_fit, "RIDGES", (1e-6,))
    settings = TrainSettings("", runs.config, dynamics="markov", encoder="index", kind="additive")
    model = train_simulator(settings, runs=runs).model
    training = runs.split("train")
    change = training.values[..., 1] - training.values[..., 0]
    datamodel = np.linalg.lstsq(inside[[int(run) for run in training.runs]], change, rcond=None)[0]
    held_out = runs.split("test")
    wanted = held_out.values[..., 0] + inside[[int(run) for run in held_out.runs]] @ datamodel
    found = Simulated(model).predict(held_out)[..., 1]
    assert np.abs(wanted - held_out.values[..., 0]).max() > 0.2
    np.testing.assert_allclose(found, wanted, atol=0.01)
