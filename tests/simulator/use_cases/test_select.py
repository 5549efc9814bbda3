"""Choosing examples: greedy against brute force, and whole selections judged by real training."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.errors import DataError, SettingsError
from simulator.reporting.result_files import Finished, write_result_page
from simulator.use_cases.case import load_case
from simulator.use_cases.select import SelectSettings, cycled, select
from simulator.use_cases.select_bound import distances, mixture_bound
from simulator.use_cases.select_methods import greedy, most_similar, near, one_shot
from simulator.use_cases.select_report import better_than_random, selection_result
from tests.accessibility import page_faults


def _even(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(1, keepdim=True)


def _nowhere(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A centre and vectors of no length: every choice is as near as any other."""
    return torch.full((size,), 1 / size), torch.zeros(size, size)


def test_greedy_equals_brute_force_where_effects_add_up() -> None:
    effects = np.random.default_rng(0).normal(size=8)

    def outcome(weights: torch.Tensor) -> torch.Tensor:
        return _even(weights).double() @ torch.from_numpy(effects)

    best = min(combinations(range(8), 3), key=lambda chosen: effects[list(chosen)].mean())
    assert sorted(greedy(outcome, 8, 3)) == list(best)
    assert sorted(one_shot(outcome, outcome, *_nowhere(8), 3)) == list(best)


def test_choices_keep_a_balance_where_single_effects_all_point_one_way() -> None:
    # The outcome is best for a nearly even mixture of both sides; the pool has more of the first, so that every example
    # of the second helps alone.
    sides = torch.tensor([1.0] * 8 + [-1.0] * 4)
    vectors = torch.nn.functional.one_hot((sides < 0).long(), 2).float()

    def outcome(weights: torch.Tensor) -> torch.Tensor:
        return (_even(weights) @ sides - 0.05).square()

    single = outcome(torch.ones(12, 12) + torch.eye(12))
    assert single[8:].max() < single[:8].min()
    for chosen in (
        greedy(outcome, 12, 4),
        one_shot(outcome, outcome, torch.full((12,), 1 / 12), vectors @ vectors.T, 4),
    ):
        assert len(set(chosen)) == 4
        assert abs(float(sides[chosen].mean())) <= 0.5


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_near_adds_what_a_slow_search_adds(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    effects, centre = torch.from_numpy(rng.normal(size=7)), torch.from_numpy(rng.dirichlet(np.ones(7)))
    vectors = torch.from_numpy(rng.normal(size=(7, 3)))
    weight, slow = float(rng.uniform(0, 5)), []
    for _ in range(count):

        def value(at: int, so_far: tuple[int, ...] = tuple(slow)) -> float:
            places = [*so_far, at]
            away = vectors[places].mean(0) - centre @ vectors
            return float(effects[places].mean() + weight * away.square().sum())

        slow.append(min((at for at in range(7) if at not in slow), key=value))
    assert near(effects, weight, centre, vectors @ vectors.T, count) == slow


def test_the_simulated_outcome_is_that_of_the_mixture(memory: str, collected: str) -> None:
    case = load_case(memory, collected)
    fact = case.run()
    bound = mixture_bound(case, fact, [0, 3])
    chosen = [2, 5, 11]
    weights = torch.zeros(1, 20)
    weights[0, chosen] = 1.0
    curriculum = [chosen] * len(bound.rates)
    simulated = case.model.what_if(curriculum, pool=fact.pool, test=fact.test, initial=fact.values[0, :, 0]).simulate()
    assert float(bound.simulated(weights)[0]) == pytest.approx(float(simulated[[0, 3], -1].mean()), rel=1e-5)


def test_the_error_grows_with_the_distance_as_held_out_runs_were_missed(memory: str, collected: str) -> None:
    case = load_case(memory, collected)
    target = [1, 2, 4]
    bound = mixture_bound(case, case.run(), target)
    vectors = case.model.encode(case.runs.pool).pool
    vectors = torch.nn.functional.normalize(vectors, dim=1)

    def mean(run: int) -> torch.Tensor:
        visited = [key for batch in case.runs.curricula[run] for key in batch]
        return vectors[visited].mean(0)

    held = case.runs.runs.index("0004")
    centre = torch.stack([mean(at) for at in range(6) if at != held]).mean(0)
    away = float((mean(held) - centre).norm())
    predicted = case.model.what_if(case.runs.take([held])).simulate()[:, -1].numpy()
    missed = float((case.runs.values[held, :, -1] - predicted)[target].mean())
    assert bound.error_rate == pytest.approx(abs(missed) / away, rel=1e-3)
    weights = torch.zeros(2, 20)
    weights[0, [0, 1]], weights[1, 7] = 1.0, 2.0
    wanted = [float((vectors[[0, 1]].mean(0) - centre).norm()), float((vectors[7] - centre).norm())]
    np.testing.assert_allclose(bound.error(weights) / bound.error_rate, wanted, rtol=1e-3)
    np.testing.assert_allclose(bound.worst(weights), bound.simulated(weights) + bound.error(weights), rtol=1e-6)


def test_without_held_out_runs_there_is_no_error_to_measure(memory: str, collected: str) -> None:
    case = load_case(memory, collected)
    case = replace(case, runs=case.runs.split("train", "validation"))
    with pytest.raises(DataError, match="test"):
        mixture_bound(case, case.run(), [0])


def test_distances_are_those_of_mean_vectors() -> None:
    rng = np.random.default_rng(3)
    vectors, shares = torch.from_numpy(rng.normal(size=(5, 4))), torch.from_numpy(rng.dirichlet(np.ones(5), size=3))
    wanted = (shares[1:] @ vectors - shares[0] @ vectors).norm(dim=1)
    torch.testing.assert_close(distances(shares[1:], shares[0], vectors @ vectors.T), wanted)


def test_cycled_visits_the_choice_evenly() -> None:
    made = cycled([4, 7, 9], batch_size=2, steps=6, seed=0)
    assert [len(batch) for batch in made] == [2] * 6
    assert Counter(key for batch in made for key in batch) == {4: 4, 7: 4, 9: 4}
    assert made != cycled([4, 7, 9], batch_size=2, steps=6, seed=1)


def test_most_alike_are_those_of_the_largest_mean_cosine() -> None:
    rng = np.random.default_rng(1)
    pool, target = rng.normal(size=(7, 4)), rng.normal(size=(3, 4))
    cosine = [np.mean([each @ goal / np.linalg.norm(each) / np.linalg.norm(goal) for goal in target]) for each in pool]
    assert most_similar(pool, target, 3) == np.argsort(cosine)[::-1][:3].tolist()


@pytest.fixture
def quick_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random vectors: what they are is for the encoders' own tests."""
    import simulator.use_cases.select as module

    monkeypatch.setattr(module, "make_encoder", lambda kind, base, tokenization: kind)
    monkeypatch.setattr(
        module,
        "encode_cached",
        lambda kind, examples: np.random.default_rng(len(examples)).normal(size=(len(examples), 4)),
    )


def test_every_method_is_judged_by_training_on_its_choice(
    memory: str, collected: str, tmp_path: Path, quick_vectors: None
) -> None:
    settings = SelectSettings(collected, memory, output=tmp_path, count=4, seeds=2, random=3, workers=1)
    found = select(settings)
    assert set(found.choices) == {"random", "greedy", "one_shot", "tracin", "similarity", "length"}
    assert found.choices["random"][0] != found.choices["random"][1]
    for name, choices in found.choices.items():
        assert all(len(set(chosen)) == 4 for chosen in choices)
        assert found.on_target[name].shape == found.on_others[name].shape == (3 if name == "random" else 2,)
    assert not set(found.target) & set(found.others)
    worst = {name: (found.simulated[name] + found.simulation_error[name]).mean() for name in found.choices}
    assert worst["greedy"] <= worst["random"]
    again = select(settings)
    assert again.seconds is None
    np.testing.assert_array_equal(again.on_target["greedy"], found.on_target["greedy"])
    result = selection_result(found)
    assert [row["method"] for row in result.rows] == list(found.choices)
    assert result.rows[0]["better_than_random"] == pytest.approx(0, abs=1e-6)
    assert found.to_pandas().method.tolist() == list(found.choices)
    drawn = {line.name: dict(zip(found.choices, line.y, strict=True)) for line in found.plot().data}
    assert drawn["target"] == {name: pytest.approx(float(each.mean())) for name, each in found.on_target.items()}
    shown = repr(found)
    assert all(name in shown and f"<td>{name}</td>" in found._repr_html_() for name in found.choices)
    write_result_page(tmp_path / "page.html", Finished("select", "Selection", result, "c", 1.0))
    assert page_faults(tmp_path / "page.html") == []
    with pytest.raises(SettingsError, match="figure 1: there is none; the result has 1"):
        found.plot(1)
    mine, random = found.on_target["length"], found.on_target["random"]
    gain, error = better_than_random(found, "length")
    assert gain == pytest.approx(random.mean() - mine.mean(), abs=1e-6)
    assert error == pytest.approx(np.sqrt(np.var(mine, ddof=1) / 2 + np.var(random, ddof=1) / 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "leaves nothing to train on"),
        ({"count": 21}, "count=21 is more than the 20 examples"),
        ({"count": 2}, "does not fill a batch: give at least 3"),
        ({"count": 4, "test_ids": (99,)}, "no test example 99"),
        ({"seeds": 0}, "seeds=0 must be at least 1"),
        ({"random": 1}, "random=1 must be at least 2"),
        ({"device": "tpu"}, "device='tpu' must be auto, cpu, cuda or cuda:<number>"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    memory: str, collected: str, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        select(SelectSettings(collected, memory, output=tmp_path, **changes))  # type: ignore[arg-type]
