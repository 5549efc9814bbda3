"""Unigram and trigram models of a token stream: the yardstick a pretrained model must beat."""

from __future__ import annotations

import math

import numpy as np


class NgramModel:
    """Interpolated absolute discounting over token n-grams, orders 1 to `order`.

    P(w | h) = max(c(hw) - d, 0) / c(h) + d * types(h) / c(h) * P(w | shorter h), and add-one at order 1.

    Args:
        tokens: training stream `[tokens]`.
        vocabulary: number of token ids.
        order: longest n-gram; 1 is a unigram model.
        discount: d, taken from every count seen.
    """

    def __init__(self, tokens: np.ndarray, vocabulary: int, order: int, discount: float = 0.75) -> None:
        self.vocabulary = vocabulary
        self.order = order
        self.discount = discount
        self.grams: list[tuple[np.ndarray, np.ndarray]] = []
        self.contexts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for n in range(1, order + 1):
            keys, counts = np.unique(self._keys(tokens, n), return_counts=True)
            self.grams.append((keys, counts))
            context, first = np.unique(keys // vocabulary, return_index=True)
            totals = np.add.reduceat(counts, first)
            types = np.diff(np.append(first, len(keys)))
            self.contexts.append((context, totals, types))

    def _keys(self, tokens: np.ndarray, n: int) -> np.ndarray:
        """Every n-gram as one integer, oldest token most significant: `[tokens - n + 1]`."""
        wide = tokens.astype(np.int64)
        keys = np.zeros(len(wide) - n + 1, dtype=np.int64)
        for offset in range(n):
            keys = keys * self.vocabulary + wide[offset : len(wide) - n + 1 + offset]
        return keys

    @staticmethod
    def _look_up(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
        return place, table[place] == keys

    def bits(self, tokens: np.ndarray) -> float:
        """Total code length of `tokens` in bits; the first `order - 1` tokens are not scored."""
        skip = self.order - 1
        counts = np.zeros(self.vocabulary)
        counts[self.grams[0][0]] = self.grams[0][1]
        probability = ((counts + 1) / (counts.sum() + self.vocabulary))[tokens[skip:]]
        for n in range(2, self.order + 1):
            keys = self._keys(tokens[self.order - n :], n)
            place, known = self._look_up(self.grams[n - 1][0], keys)
            count = np.where(known, self.grams[n - 1][1][place], 0)
            index, seen = self._look_up(self.contexts[n - 1][0], keys // self.vocabulary)
            total, types = self.contexts[n - 1][1][index], self.contexts[n - 1][2][index]
            direct = np.maximum(count - self.discount, 0) / total
            mixed = direct + self.discount * types / total * probability
            probability = np.where(seen, mixed, probability)
        return float(-np.log(probability).sum() / math.log(2))
