"""BLEU and ROUGE-L of generated text against references."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np


@cache
def _scorers() -> tuple[Any, Any]:
    from rouge_score import rouge_scorer
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True), rouge_scorer.RougeScorer(["rougeL"])


def score_texts(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Sentence BLEU and ROUGE-L of each text.

    Args:
        texts: generated texts; an empty one scores 0.
        references: for each text its references.

    Returns:
        `bleu`: sacrebleu sentence BLEU with effective order over all references, 0 to 100; `rougeL`: F1
        against the best reference, 0 to 1. Both `[texts]` float32.
    """
    bleu, rouge = _scorers()
    scores = {name: np.zeros(len(texts), dtype=np.float32) for name in ("bleu", "rougeL")}
    for at, (text, wanted) in enumerate(zip(texts, references, strict=True)):
        if text.strip():
            scores["bleu"][at] = bleu.sentence_score(text, list(wanted)).score
            scores["rougeL"][at] = max(rouge.score(one, text)["rougeL"].fmeasure for one in wanted)
    return scores
