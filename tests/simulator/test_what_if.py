"""A changed run is the run of the changed curriculum; many at once are each alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import visit_shares
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.what_if import WhatIf, simulate_many
from tests.simulator.conftest import sentiment

POOL, TESTS, STEPS = 7, 4, 6
CURRICULUM = [[0, 1], [2, 3], [4, 0], [5, 6], [1, 2], [3, 3]]
INITIAL = [1.0, 2.0, 0.5, 3.0]
MakeDynamics = Callable[..., Dynamics]


@pytest.fixture(params=["memory", "markov", "markov of order 2, every 2 updates"])
def model(
    request: pytest.FixtureRequest,
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator],
) -> GPTfluenceSimulator:
    dynamics = request.param.split()[0]
    more = {"order": 2, "stride": 2} if "order" in request.param else {}
    return make_model(make_config(dynamics, **more))


def initial_of(model: GPTfluenceSimulator) -> list[list[float]]:
    return [[value] * model.config.order for value in INITIAL]


@pytest.fixture
def run(model: GPTfluenceSimulator) -> WhatIf:
    return model.what_if(CURRICULUM, initial=initial_of(model))


def simulated(model: GPTfluenceSimulator, curriculum: Curriculum, rates: list[float] | None = None) -> torch.Tensor:
    return model.simulate(curriculum, initial=initial_of(model), learning_rate=rates)


def same(found: WhatIf, model: GPTfluenceSimulator, curriculum: Curriculum, rates: list[float] | None = None) -> None:
    assert [list(batch) for batch in found.curriculum] == curriculum
    torch.testing.assert_close(found.simulate(), simulated(model, curriculum, rates))


def test_drop(run: WhatIf, model: GPTfluenceSimulator) -> None:
    same(run.drop([0, 5]), model, [[1], [2, 3], [4], [6], [1, 2], [3, 3]])
    same(run.drop([0, 1]), model, [[], [2, 3], [4], [5, 6], [2], [3, 3]])
    same(run.drop([0], steps=[3]), model, [[0, 1], [2, 3], [4], [5, 6], [1, 2], [3, 3]])


def test_add(run: WhatIf, model: GPTfluenceSimulator) -> None:
    same(run.add([6, 0], steps=[1, 6]), model, [[0, 1, 6, 0], *CURRICULUM[1:5], [3, 3, 6, 0]])


def test_replace(run: WhatIf, model: GPTfluenceSimulator) -> None:
    same(run.replace({0: 5, 1: 0}), model, [[5, 0], [2, 3], [4, 5], [5, 6], [0, 2], [3, 3]])
    same(run.replace({3: 1}, steps=[6]), model, [*CURRICULUM[:5], [1, 1]])


def test_reorder(run: WhatIf, model: GPTfluenceSimulator) -> None:
    same(run.reorder([6, 1, 2, 3, 4, 5]), model, [CURRICULUM[5], *CURRICULUM[:5]])


def test_repeat_stretches_the_schedule(run: WhatIf, model: GPTfluenceSimulator) -> None:
    twice = run.repeat(2)
    rates = model.config.learning_rate
    wanted = np.interp(np.arange(12) / 2 - 0.25, range(6), rates)
    np.testing.assert_allclose(twice.learning_rate, wanted)
    assert sum(twice.learning_rate) == pytest.approx(2 * sum(rates))
    same(twice, model, CURRICULUM * 2, wanted.tolist())
    same(run.repeat(1), model, CURRICULUM)


def test_schedule(run: WhatIf, model: GPTfluenceSimulator) -> None:
    rates = [2e-4 * step for step in range(6)]
    same(run.schedule(rates), model, CURRICULUM, rates)


def test_a_weight_is_how_often_an_example_counts_in_its_batch(run: WhatIf, model: GPTfluenceSimulator) -> None:
    counted = [[0] * 3 + [1], [2, 3], [4] + [0] * 3, [5, 6], [1, 2], [3, 3]]
    torch.testing.assert_close(run.reweigh({0: 3.0}).simulate(), simulated(model, counted))
    torch.testing.assert_close(run.reweigh({0: 0.0}).simulate(), run.drop([0]).simulate())
    late = [*CURRICULUM[:2], [4, 0, 0], *CURRICULUM[3:]]
    torch.testing.assert_close(run.reweigh({0: 2.0}, steps=[3]).simulate(), simulated(model, late))


def test_changes_follow_each_other_and_leave_what_they_began_with(run: WhatIf, model: GPTfluenceSimulator) -> None:
    before = run.simulate()
    changed = run.drop([0]).reorder([2, 1, 3, 4, 5, 6]).reweigh({1: 2.0}).add([4], [2])
    same(changed.reweigh({1: 1.0}), model, [[2, 3], [1, 4], [4], [5, 6], [1, 2], [3, 3]])
    assert not torch.allclose(changed.simulate(), before)
    torch.testing.assert_close(run.simulate(), before)


def test_a_run_read_from_a_dataset_brings_its_first_values_and_rates(
    model: GPTfluenceSimulator, make_dynamics: MakeDynamics
) -> None:
    values = np.random.default_rng(0).uniform(1, 2, size=(2, TESTS, STEPS + 1))
    runs = make_dynamics([CURRICULUM, CURRICULUM[::-1]], values, POOL, rates=np.full((2, STEPS), 3e-4))
    found = model.what_if(runs.take([1])).drop([0]).simulate()
    curriculum = [[3, 3], [1, 2], [5, 6], [4], [2, 3], [1]]
    wanted = model.simulate(
        curriculum, runs.pool, runs.test, values[1, :, : model.config.order], learning_rate=[3e-4] * STEPS
    )
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match=r"2 runs are given; take one"):
        model.what_if(runs)


def test_many_at_once_are_each_alone(run: WhatIf) -> None:
    random = np.random.default_rng(0)
    many = [
        run.reorder((random.permutation(STEPS) + 1).tolist()).reweigh({2: float(w)}) for w in random.uniform(size=300)
    ]
    many += [run.schedule(random.uniform(0, 1e-3, STEPS).tolist()) for _ in range(3)]
    found = simulate_many(many)
    assert found.shape == (303, TESTS, STEPS + 1)
    for each, alone in zip(found, many, strict=True):
        torch.testing.assert_close(each, alone.simulate(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(simulate_many(many, final=True), found[..., -1])


def test_what_goes_beyond_training_is_said(run: WhatIf) -> None:
    assert run.beyond == ()
    assert run.reorder([2, 1, 3, 4, 5, 6]).beyond == ()
    assert run.drop([0]).beyond == ("batches of 1, trained on 2",)
    assert run.drop([0, 1], steps=[1]).beyond == ()
    assert run.schedule([1e-4] * STEPS).beyond == ("another learning-rate schedule",)
    longer = run.repeat(2).beyond
    assert longer[0] == "12 steps, trained on 6"
    assert longer[1].startswith("sum of learning rates 0.007")
    assert run.schedule([2e-3] + [0.0] * 5).beyond == ("learning rate 0.002, trained on at most 0.001",)


def test_rows_and_repeats_that_no_training_run_had_are_said(run: WhatIf, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run.situation.simulator.config
    monkeypatch.setattr(config, "most_visits", 3)
    monkeypatch.setattr(config, "fewest_rows", 6)
    assert run.beyond == ()
    assert replace(run, curriculum=((3, 4),) * STEPS).beyond == (
        "2 rows, trained on runs of at least 6",
        f"a row visited {STEPS} times, trained on at most 3",
    )
    monkeypatch.setattr(config, "never_visited", [5, 6])
    assert run.beyond == ("2 rows that no run it was trained on has",)
    assert "2 rows that no run" in repr(run) and run.replace({5: 1, 6: 0}).beyond == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.drop([99]), "example 99 is not in the pool"),
        (lambda run: run.drop([0], steps=[7]), "there is no step 7; the run has steps 1 to 6"),
        (lambda run: run.drop([0], steps=[0]), "there is no step 0"),
        (lambda run: run.add([99], [1]), "example 99 is not in the pool"),
        (lambda run: run.replace({0: 99}), "example 99 is not in the pool"),
        (lambda run: run.reorder([1, 1, 2, 3, 4, 5]), "each step from 1 to 6 once"),
        (lambda run: run.repeat(0), "times=0"),
        (lambda run: run.reweigh({0: -1.0}), "weight -1.0 must be finite and at least 0"),
        (lambda run: run.schedule([1e-3]), "the curriculum has 6 steps, the learning rates 1"),
        (lambda run: run.schedule([float("nan")] * 6), "finite and at least 0"),
        (lambda run: simulate_many([]), "at least one alternative"),
        (lambda run: simulate_many([run, run.repeat(2)]), "different lengths"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(run: WhatIf, change: Callable[[WhatIf], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(run)


def test_runs_of_different_models_are_not_simulated_together(run: WhatIf, model: GPTfluenceSimulator) -> None:
    other = model.what_if(CURRICULUM, initial=initial_of(model))
    with pytest.raises(ValueError, match="changes of one what_if"):
        simulate_many([run, other])


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.floats(0.01, 9)), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    ids=st.permutations(range(5)),
)
def test_shares_with_weights_equal_a_loop(batches: list[list[tuple[int, float]]], ids: list[int]) -> None:
    found = visit_shares(
        [[[key for key, _ in batch] for batch in batches]],
        ids,
        [[[weight for _, weight in batch] for batch in batches]],
    )
    wanted = np.zeros((len(batches), 5))
    for step, batch in enumerate(batches):
        for key, weight in batch:
            wanted[step, ids.index(key)] += weight / sum(each for _, each in batch)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5)


def test_an_empty_batch_has_no_shares() -> None:
    found = visit_shares([[[0], [1]], [[0], []]], range(2))
    assert found.tolist() == [[[1, 0], [0, 1]], [[1, 0], [0, 0]]]


def test_examples_may_be_dictionaries_or_a_dataset(model: GPTfluenceSimulator) -> None:
    from datasets import Dataset

    examples = sentiment("test", TESTS)
    rows = [{"id": each.id, "prompt": each.prompt, "target": each.target} for each in examples]
    initial = initial_of(model)
    wanted = model.simulate(CURRICULUM, test=examples, initial=initial)
    for given_rows in (rows, Dataset.from_list(rows), [{**row, "source": "{}", "references": None} for row in rows]):
        assert torch.equal(model.simulate(CURRICULUM, test=given_rows, initial=initial), wanted)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a1", "prompt": "b", "target": " c"}], "the id 'a1' of example 0 is not a whole number"),
        ([{"id": 1, "text": "b"}], "example 0 has no prompt, but id, text: give id, prompt and target"),
        (["b"], "example 0 is 'b': give dictionaries or objects"),
        (
            [{"id": 1, "prompt": "b", "target": " c"}, {"id": 1, "prompt": "d", "target": " c"}],
            "two examples have the id 1",
        ),
    ],
)
def test_what_is_no_example_is_said(model: GPTfluenceSimulator, rows: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.simulate(CURRICULUM, test=rows, initial=[[1.0]])
