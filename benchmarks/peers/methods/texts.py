"""How alike texts are: BM25, sentence vectors, and whether the targets are the same. No run is looked at."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.peers.method import Fitted, Method
from benchmarks.peers.work import Work

# The usual constants of BM25: how soon repeated words stop counting, and how much longer texts count less.
SATURATION, LENGTH = 1.5, 0.75


def words_of(text: str) -> list[str]:
    """Words in lower case."""
    return re.findall(r"\w+", text.lower())


def fit_bm25(work: Work) -> Fitted:
    """Rows are the documents, test examples the queries."""
    documents = [Counter(words_of(text)) for text in work.row_texts]
    lengths = np.array([sum(each.values()) for each in documents], dtype=float)
    holding = Counter(word for each in documents for word in each)
    size = len(documents)

    def ask(tests: Sequence[int]) -> np.ndarray:
        scores = np.zeros((size, len(tests)))
        for column, test in enumerate(tests):
            for word in words_of(work.test_texts[test]):
                if word not in holding:
                    continue
                rarity = math.log(1 + (size - holding[word] + 0.5) / (holding[word] + 0.5))
                times = np.array([each[word] for each in documents], dtype=float)
                scale = SATURATION * (1 - LENGTH + LENGTH * lengths / lengths.mean())
                scores[:, column] += rarity * times * (SATURATION + 1) / (times + scale)
        return -scores

    return Fitted(ask)


def fit_sentences(work: Work) -> Fitted:
    """Cosine of the vectors of MiniLM, the encoder of the paper."""
    from simulator.encoders.sentence import SentenceEncoder

    model = SentenceEncoder().model
    rows = model.encode(work.row_texts, normalize_embeddings=True, show_progress_bar=False)

    def ask(tests: Sequence[int]) -> np.ndarray:
        texts = [work.test_texts[test] for test in tests]
        return -(rows @ model.encode(texts, normalize_embeddings=True, show_progress_bar=False).T)

    return Fitted(ask)


def fit_targets(work: Work) -> Fitted:
    """1 where the targets are the same."""

    def ask(tests: Sequence[int]) -> np.ndarray:
        same = [[row == work.test_targets[test] for test in tests] for row in work.row_targets]
        return -np.array(same, dtype=float)

    return Fitted(ask)


def _passes(work: Work) -> tuple[float, float]:
    return 0, 0


ANY = ("new_row", "new_test", "unseen_run")
METHODS = (
    Method("bm25", "BM25", fit_bm25, _passes, ANY, note="own implementation"),
    Method("sentences", "MiniLM similarity", fit_sentences, _passes, ANY, note="passes of another, smaller model"),
    Method("same_target", "same target", fit_targets, _passes, ANY, note="1 where targets agree"),
)
