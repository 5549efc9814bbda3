"""Choosing examples: greedy against brute force, and whole selections judged by real training."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.errors import SettingsError
from simulator.use_cases.case import load_case
from simulator.use_cases.select import (
    SelectSettings,
    cycled,
    greedy,
    most_alike,
    one_shot,
    select,
    simulated_outcome,
)
from simulator.use_cases.select_report import selection_result


def test_greedy_equals_brute_force_where_effects_add_up() -> None:
    effects = np.random.default_rng(0).normal(size=8)

    def outcome(weights: torch.Tensor) -> np.ndarray:
        return (weights / weights.sum(1, keepdim=True)).double().numpy() @ effects

    best = min(combinations(range(8), 3), key=lambda chosen: effects[list(chosen)].mean())
    assert sorted(greedy(outcome, 8, 3)) == sorted(one_shot(outcome, 8, 3)) == list(best)


def test_greedy_balances_where_one_shot_repeats_itself() -> None:
    # Two targets: what helps one harms the other; the loss of both is least for an even mixture.
    sides = np.array([1.0, 0.9, 0.8, -1.0, -0.9, -0.8])

    def outcome(weights: torch.Tensor) -> np.ndarray:
        balance = (weights / weights.sum(1, keepdim=True)).double().numpy() @ sides
        return np.square(balance - 0.05)

    assert abs(sides[greedy(outcome, 6, 4)].sum()) < 0.3


def test_the_outcome_is_that_of_the_simulated_mixture(memory: str, collected: str) -> None:
    case = load_case(memory, collected)
    run = case.model.what_if(case.run())
    outcome = simulated_outcome(run.situation, run.learning_rate, [0, 3], higher_is_better=False)
    chosen = [2, 5, 11]
    weights = torch.zeros(1, 20)
    weights[0, chosen] = 1.0
    curriculum = [chosen] * len(run.learning_rate)
    fact = case.run()
    simulated = case.model.what_if(curriculum, pool=fact.pool, test=fact.test, initial=fact.values[0, 0]).simulate()
    assert outcome(weights)[0] == pytest.approx(float(simulated[[0, 3], -1].mean()), rel=1e-5)


def test_cycled_visits_the_choice_evenly() -> None:
    made = cycled([4, 7, 9], batch_size=2, steps=6, seed=0)
    assert [len(batch) for batch in made] == [2] * 6
    assert Counter(key for batch in made for key in batch) == {4: 4, 7: 4, 9: 4}
    assert made != cycled([4, 7, 9], batch_size=2, steps=6, seed=1)


def test_most_alike_are_those_of_the_largest_mean_cosine() -> None:
    rng = np.random.default_rng(1)
    pool, target = rng.normal(size=(7, 4)), rng.normal(size=(3, 4))
    cosine = [np.mean([each @ goal / np.linalg.norm(each) / np.linalg.norm(goal) for goal in target]) for each in pool]
    assert most_alike(pool, target, 3) == np.argsort(cosine)[::-1][:3].tolist()


@pytest.fixture
def quick_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random vectors: what they are is for the encoders' own tests."""
    import simulator.use_cases.select as module

    monkeypatch.setattr(module, "make_encoder", lambda kind, base: kind)
    monkeypatch.setattr(
        module,
        "encode_cached",
        lambda kind, examples: np.random.default_rng(len(examples)).normal(size=(len(examples), 4)),
    )


def test_every_method_is_judged_by_training_on_its_choice(
    memory: str, collected: str, tmp_path: Path, quick_vectors: None
) -> None:
    settings = SelectSettings(memory, collected, tmp_path, count=4, seeds=2, workers=1)
    found = select(settings)
    assert set(found.choices) == {"random", "greedy", "one_shot", "tracin", "similarity", "length"}
    assert found.choices["random"][0] != found.choices["random"][1]
    for name, choices in found.choices.items():
        assert all(len(set(chosen)) == 4 for chosen in choices)
        assert found.on_target[name].shape == found.on_others[name].shape == (2,)
    assert not set(found.target) & set(found.others)
    assert found.simulated["greedy"].mean() <= found.simulated["random"].mean()
    again = select(settings)
    assert again.seconds is None
    np.testing.assert_array_equal(again.on_target["greedy"], found.on_target["greedy"])
    result = selection_result(found)
    assert [row["method"] for row in result.rows] == list(found.choices)
    assert result.rows[0]["better_than_random"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "leaves nothing to train on"),
        ({"count": 21}, "count=21 is more than the 20 examples"),
        ({"count": 2}, "does not fill a batch of 3"),
        ({"count": 4, "test_ids": (99,)}, "no test example 99"),
        ({"seeds": 0}, "seeds=0 must be at least 1"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    memory: str, collected: str, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        select(SelectSettings(memory, collected, tmp_path, **changes))  # type: ignore[arg-type]
