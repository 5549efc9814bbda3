from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.nano.ngram import NgramModel


def slow_bits(train: list[int], text: list[int], vocabulary: int, order: int, discount: float) -> float:
    """Interpolated absolute discounting with dictionaries, one token at a time."""
    counts = Counter(tuple(train[at : at + n]) for n in range(1, order + 1) for at in range(len(train) - n + 1))

    def probability(history: tuple[int, ...], word: int) -> float:
        if not history:
            return (counts[(word,)] + 1) / (len(train) + vocabulary)
        shorter = probability(history[1:], word)
        followers = [counts[(*history, other)] for other in range(vocabulary) if counts[(*history, other)]]
        if not followers:
            return shorter
        total = sum(followers)
        direct = max(counts[(*history, word)] - discount, 0) / total
        return direct + discount * len(followers) / total * shorter

    scored = range(order - 1, len(text))
    return -sum(math.log2(probability(tuple(text[at - order + 1 : at]), text[at])) for at in scored)


@given(st.data())
def test_code_length_equals_that_of_a_dictionary_loop(data: st.DataObject) -> None:
    vocabulary = data.draw(st.integers(2, 7))
    order = data.draw(st.integers(1, 4))
    stream = st.lists(st.integers(0, vocabulary - 1), min_size=order, max_size=40)
    train, text = data.draw(stream), data.draw(stream)
    discount = data.draw(st.sampled_from([0.25, 0.75, 1.0]))
    model = NgramModel(np.array(train, dtype=np.uint16), vocabulary, order, discount)
    fast = model.bits(np.array(text, dtype=np.uint16))
    assert fast == pytest.approx(slow_bits(train, text, vocabulary, order, discount), rel=1e-9)


def test_a_trigram_model_needs_far_fewer_bits_for_a_repeating_text() -> None:
    stream = np.tile(np.array([0, 1, 2, 1], dtype=np.uint16), 200)
    unigram, trigram = (NgramModel(stream, 3, order).bits(stream) for order in (1, 3))
    assert trigram < unigram / 50


def test_ids_of_a_vocabulary_of_8192_do_not_run_into_each_other() -> None:
    tokens = np.array([8191, 0, 8190, 8191, 0, 8191, 8191, 8190, 0], dtype=np.uint16)
    fast = NgramModel(tokens, 8192, 3).bits(tokens)
    slow = slow_bits(tokens.tolist(), tokens.tolist(), 8192, 3, 0.75)
    assert fast == pytest.approx(slow, rel=1e-9)
