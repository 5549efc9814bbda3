from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from gptdynamics.measurement import score_texts

word = st.sampled_from("the cat The is in garden , . red Haus grün 3.5 %".split())
text = st.lists(word, min_size=1, max_size=8).map(" ".join)


@given(st.lists(st.tuples(text, st.lists(text, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_scores_equal_sacrebleu_and_the_best_reference_of_rouge_score(pairs: list[tuple[str, list[str]]]) -> None:
    scores = score_texts([generated for generated, _ in pairs], [references for _, references in pairs])
    rouge = RougeScorer(["rougeL"])
    for at, (generated, references) in enumerate(pairs):
        bleu = sacrebleu.sentence_bleu(generated, references, use_effective_order=True).score
        best = max(rouge.score(reference, generated)["rougeL"].fmeasure for reference in references)
        assert scores["bleu"][at] == pytest.approx(bleu, abs=1e-4)
        assert scores["rougeL"][at] == pytest.approx(best, abs=1e-6)


def test_an_empty_text_scores_zero_and_a_reference_scores_full() -> None:
    scores = score_texts(["", "  \n", "The cat is red ."], [["a"], ["a"], ["A dog", "The cat is red ."]])
    assert list(scores) == ["bleu", "rougeL"]
    assert {values.dtype for values in scores.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(scores["bleu"], [0, 0, 100], atol=1e-4)
    np.testing.assert_allclose(scores["rougeL"], [0, 0, 1])
