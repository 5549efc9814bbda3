"""Which score orders the suspects: the one that predicts the given labels, which is seen without the right ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from simulator.use_cases.mislabel_recorded import kernel_harm
from simulator.use_cases.mislabel_signals import Order, Signal, mean_rank, settle_order

LABELS = ["yes", "no"] * 20


def signal(name: str, share: float, seed: int) -> Signal:
    rng = np.random.default_rng(seed)
    right = np.zeros(40, dtype=bool)
    right[rng.permutation(40)[: round(40 * share)]] = True
    return Signal(name, f"what {name} says", rng.normal(size=40), right)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.9, 0.5), "first"),
        ((0.5, 0.9), "second"),
        ((0.85, 0.85), "mean_rank"),
        # Neither knows more of the labels than that half of them are yes.
        ((0.5, 0.4), "mean_rank"),
    ],
)
def test_the_order_is_that_of_the_signal_that_predicts_given_labels(shares: tuple[float, float], expected: str) -> None:
    signals = [signal("first", shares[0], 0), signal("second", shares[1], 1)]
    scores = {each.name: each.score for each in signals} | mean_rank(signals)
    order = settle_order("auto", signals, scores, LABELS)
    assert order.by == expected
    assert f"what first says {shares[0]:.0%}, what second says {shares[1]:.0%}; always the commonest 50%" in order.why
    assert ("expect little" in order.why) == (max(shares) <= 0.5)
    assert settle_order("second", signals, scores, LABELS) == Order("second", "as --by second asks")
    with pytest.raises(SettingsError, match=r"by='third' is not available here: give auto or one of first, second"):
        settle_order("third", signals, scores, LABELS)


def test_ranks_count_alike_whatever_the_scores_are() -> None:
    signals = [Signal("a", "", np.array([1e6, 0.0, 5.0])), Signal("b", "", np.array([0.1, 0.2, 0.3]))]
    np.testing.assert_allclose(mean_rank(signals)["mean_rank"], [0.5, 0.25, 0.75])
    assert not mean_rank(signals[:1])


def test_gradients_against_those_of_the_test_examples_are_harm(make_example: Callable[[str, str], Example]) -> None:
    """Rows whose label is wrong pull against test examples; a test example that is the row itself says nothing."""
    rng = np.random.default_rng(0)
    pool = [make_example(f"row {at}", " yes" if at % 2 else " no") for at in range(12)]
    test = [make_example(f"test {at}", " yes" if at % 2 else " no") for at in range(5)] + [pool[3]]
    side = np.where([each.target == " yes" for each in pool], 1.0, -1.0)
    other = np.where([each.target == " yes" for each in test], 1.0, -1.0)
    wrong = [3, 8]
    # What rows of one label share is near 1, of two labels near nothing; a wrong label turns the sign.
    alike = np.where(side[:, None] == other, 1.0, 0.1)
    alike[wrong] = -alike[wrong][:, :]
    products = alike + rng.normal(size=(2, 12, 6)) / 20
    products[:, 3, 5] = 1e3
    harm = kernel_harm([products, products * 7], pool, test)
    assert set(np.argsort(-harm)[:2].tolist()) == set(wrong)
    np.testing.assert_allclose(harm, kernel_harm([products], pool, test))


@pytest.fixture
def make_example() -> Callable[[str, str], Example]:
    return lambda prompt, target: Example(0, prompt, target, task="made")
