"""Scores and curricula of mislabel: planted wrong labels come first, corrections are the right ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.configs import RunSettings
from gptdynamics.dataset import Dynamics
from gptdynamics.gradients.products import gradient_products
from gptdynamics.runs import Bench, BenchContents
from gptdynamics.tasks import get_task, load_examples
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.settings.use_cases import MislabelSettings
from simulator.use_cases.mislabel import Mislabels, detected_shares, flip_labels
from simulator.use_cases.mislabel_retraining import bucketed_curriculum, corrections
from simulator.use_cases.mislabel_scores import (
    RIDGE,
    SelfInfluence,
    left_out_mean,
    ridge_left_out,
    self_alpha,
    squared_lengths,
)
from simulator.use_cases.mislabel_signals import Order

POOL, RUNS, STEPS = 20, 10, 6


def test_planted_mislabels_are_ranked_first(make_dynamics: Callable[..., Dynamics]) -> None:
    rng = np.random.default_rng(0)
    wrong = set(rng.choice(POOL, size=6, replace=False).tolist())
    curricula = []
    for _ in range(RUNS):
        half = rng.choice(POOL, size=POOL // 2, replace=False)
        curricula.append([rng.choice(half, size=2, replace=False).tolist() for _ in range(STEPS)])
    values = np.empty((RUNS, POOL, STEPS + 1))
    for run, curriculum in enumerate(curricula):
        loss = np.ones(POOL)
        values[run, :, 0] = loss
        for step, batch in enumerate(curriculum, start=1):
            # What others teach is right for all but the wrong ones; an example's own visit always lowers its loss.
            loss = loss + np.array([0.05 if at in wrong else -0.1 for at in range(POOL)])
            loss[batch] -= 0.5
            values[run, :, step] = loss
    runs = make_dynamics(curricula, values, POOL)
    score = left_out_mean(runs, runs.values)
    assert set(np.argsort(-score)[:6].tolist()) == wrong
    for at in range(POOL):
        without = [run for run in range(RUNS) if at not in {key for batch in curricula[run] for key in batch}]
        chosen = without or range(RUNS)
        assert score[at] == pytest.approx(np.mean([values[run, at, 1:].mean() for run in chosen]))


def test_self_alpha_is_the_factor_on_itself(
    make_config: Callable[..., GPTfluenceConfig], make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator]
) -> None:
    model = make_model(make_config("markov", pool=5, tests=3))
    train, test = (side[0].detach() for side in (model.dynamics.train_side, model.dynamics.test_side))
    wanted = [float((model.pool_vectors[at] @ train) @ (model.pool_vectors[at] @ test)) for at in range(5)]
    np.testing.assert_allclose(self_alpha(model), wanted, rtol=1e-4)


def refitted(vectors: np.ndarray, wanted: np.ndarray, penalty: float) -> np.ndarray:
    """What a ridge regression on the other rows says of each row: centred, so that the constant is not penalised."""
    guessed = np.empty_like(wanted)
    for at in range(len(vectors)):
        others = np.arange(len(vectors)) != at
        middle, mean = vectors[others].mean(0), wanted[others].mean(0)
        centred = vectors[others] - middle
        gram = centred.T @ centred + penalty * np.eye(vectors.shape[1])
        guessed[at] = mean + (vectors[at] - middle) @ np.linalg.solve(gram, centred.T @ (wanted[others] - mean))
    return guessed


@given(rows=st.integers(6, 12), width=st.integers(1, 4), classes=st.integers(2, 3), seed=st.integers(0, 2**31 - 1))
def test_ridge_left_out_is_that_of_fits_without_each_row(rows: int, width: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, width))
    own = np.arange(rows) % classes
    wanted, scale = np.eye(classes)[own], np.square(vectors).sum() / width
    fits = [refitted(vectors, wanted, penalty * scale) for penalty in RIDGE]
    guessed = min(fits, key=lambda each: np.square(each - wanted).sum())
    others = np.where(wanted == 1, -np.inf, guessed).max(1)
    expected = others - guessed[wanted == 1]
    found = ridge_left_out(vectors, [f"label {label}" for label in own])
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_ridge_left_out_finds_labels_that_the_vectors_speak_against() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    labels = np.where(vectors[:, 0] > 0, "yes", "no")
    wrong = np.argsort(-np.abs(vectors[:, 0]))[:4].tolist()
    labels[wrong] = np.where(labels[wrong] == "yes", "no", "yes")
    assert set(np.argsort(-ridge_left_out(vectors, labels.tolist()))[:4].tolist()) == set(wrong)
    assert not ridge_left_out(vectors, ["yes"] * 60).any()


def test_self_influence_adds_up_squared_gradients(tiny_model_folder) -> None:
    pool = load_examples(get_task("mini_sentiment"), "pool", 4)
    settings = RunSettings(
        "mini_sentiment_x", learning_rate=1e-2, pool_size=4, subset=4, batch_size=2, epochs=2, test_examples=1,
        base_model=str(tiny_model_folder),
    )  # fmt: skip
    bench = Bench(BenchContents(settings, tuple(pool), tuple(pool[:1])))
    tokens = list(bench.tokenized.values())
    squares = squared_lengths(bench.base.model, tokens)
    np.testing.assert_allclose(squares, gradient_products(bench.base.model, tokens, tokens).diagonal(), rtol=1e-4)
    once = SelfInfluence([[0, 1], [2, 3]], checkpoints=1).do(bench)
    np.testing.assert_allclose(once, 1e-2 * squares, rtol=1e-5)
    twice = SelfInfluence([[0, 1], [2, 3]], checkpoints=2).do(bench)
    assert (twice > once).all()


@given(
    st.integers(4, 60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 5),
    st.lists(st.integers(1, 50), min_size=60),
)
def test_bucketed_curricula_visit_each_example_once_an_epoch(
    size: int, batch: int, epochs: int, seed: int, lengths: list[int]
) -> None:
    by_id = dict(enumerate(lengths))
    made = bucketed_curriculum(range(size), by_id, batch, epochs, [seed])
    each = size // batch
    assert len(made) == epochs * each
    for epoch in range(epochs):
        visited = [key for step in made[epoch * each : (epoch + 1) * each] for key in step]
        assert len(set(visited)) == len(visited) == each * batch
    assert all(len(step) == batch for step in made)
    assert made == bucketed_curriculum(range(size), by_id, batch, epochs, [seed])


def test_flips_are_seeded_and_remembered() -> None:
    pool = load_examples(get_task("mini_sentiment"), "pool", 30)
    flipped, truth = flip_labels(pool, 0.4, seed=1)
    assert len(truth) == 12
    for before, after in zip(pool, flipped, strict=True):
        assert (before.target != after.target) == (before.id in truth)
        assert truth.get(before.id, before.target) == before.target
    assert flip_labels(pool, 0.4, seed=1) == (flipped, truth)
    assert flip_labels(pool, 0.4, seed=2)[1] != truth
    assert flip_labels(pool, 0.0, seed=1) == (pool, {})


def test_suspects_show_themselves(tmp_path: Path) -> None:
    pool = load_examples(get_task("mini_sentiment"), "pool", 30)
    pool[7] = replace(pool[7], prompt="<script>alert(1)</script> \u202e")
    scores = {"ridge_left_out": np.arange(30.0) % 11, "memory_left_out": np.zeros(30)}
    order = Order("ridge_left_out", "as asked")
    found = Mislabels(MislabelSettings("mini_sentiment", tmp_path), pool, {}, scores, None, {}, order)
    assert found.to_pandas().id.tolist() == found.ranking() == found.ranking("ridge_left_out")
    assert list(found.plot().data[0].y) == sorted(scores["ridge_left_out"], reverse=True)
    assert "the most suspicious of 30 labels, by ridge_left_out" in " ".join(repr(found).split())
    again = replace(found, scores={"ridge_left_out": 1.0 * (np.arange(30) == 7)})._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\u202e" in again and "<script" not in again


def test_corrections_are_those_of_what_was_inspected() -> None:
    truth = {3: " good", 5: " bad"}
    assert corrections([5, 1, 3, 0], 0.5, truth) == {5: " bad"}
    assert corrections([5, 1, 3, 0], 1.0, truth) == truth
    assert corrections([5, 1, 3, 0], 0.0, truth) == {}
    np.testing.assert_allclose(detected_shares([5, 1, 3, 0], truth), [0, 0.5, 0.5, 1, 1])
