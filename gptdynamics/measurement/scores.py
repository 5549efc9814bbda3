"""BLEU and ROUGE-L of generated text against references, in words or characters as the script of the text asks.

A text tokenizer is named as in sacrebleu, which makes the tokens of BLEU. ROUGE-L has the tokens that rouge-score makes
by itself for `13a`: runs of the letters a-z and of digits. Those leave nothing of most other scripts, so that for
the other tokenizers its tokens are words of any script, and single characters of scripts without spaces. Accents may
be encoded in either way.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from gptdynamics.configs import TextTokenizer

# Scripts that put no spaces between words; the mark that lengthens a kana is of no script.
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Tai_Le}"
    r"\p{New_Tai_Lue}\p{Tai_Tham}\p{Javanese}\p{Balinese}\p{Yi}"
)
# Accents belong to the letter before them; joiners stand within words of Persian and of Indian scripts.
_PATTERN = (
    rf"(?=[{_UNSPACED}])[\p{{L}}\p{{N}}][\p{{M}}\u200c\u200d]*"
    rf"|(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}][\p{{M}}\u200c\u200d]*)+"
    r"|(?=[\p{So}\p{Extended_Pictographic}])\X"
)
# Shares of letters up to which a script is a foreign name or a quotation.
_FEW_FOREIGN, _FEW_UNSPACED = 0.01, 0.1
# Of the letters without spaces, those that are Han in Chinese. Japanese has a third of kana and more.
_CHINESE = 0.9


@cache
def _patterns() -> tuple[Any, Any]:
    import regex

    return regex.compile(_PATTERN), regex.compile(r"\X")


class UnicodeWords:
    """The tokens of ROUGE-L for texts of any script; of ASCII text those of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case, single characters of scripts without spaces, and emoji.

        A text of none of these, such as dots alone, is taken by its characters. How accents are encoded makes no
        difference.
        """
        words, characters = _patterns()
        text = _composed(text.lower())
        tokens: list[str] = words.findall(text)
        return tokens or [each for each in characters.findall(text) if not each.isspace()]


@cache
def _scorers(tokenizer: TextTokenizer) -> tuple[Any, Any]:
    from rouge_score import rouge_scorer
    from sacrebleu.metrics import BLEU

    words = None if tokenizer == "13a" else UnicodeWords()
    return BLEU(effective_order=True, tokenize=tokenizer), rouge_scorer.RougeScorer(["rougeL"], tokenizer=words)


def text_tokenizer_of(references: Iterable[str]) -> TextTokenizer:
    """The text tokenizer that references ask for by their script.

    Args:
        references: of one task.

    Returns:
        `13a` for English and other Latin text with few letters beyond Latin-1; `zh` for Chinese; `char` for Japanese,
        Thai and other scripts without spaces; `intl` for all else. Also not `13a` where it finds nothing in a reference
        that is not ASCII.
    """
    import regex

    texts = [_composed(text) for text in references]
    letters = [each for text in texts for each in text if each.isalpha()]
    foreign = sum(each > "\u00ff" for each in letters)
    lost = any(not text.isascii() and not regex.search("[A-Za-z0-9]", text) for text in texts)
    if foreign <= _FEW_FOREIGN * len(letters) and not lost:
        return "13a"
    unspaced = regex.findall(f"[{_UNSPACED}]", "".join(letters))
    if len(unspaced) <= _FEW_UNSPACED * len(letters):
        return "intl"
    chinese = regex.findall(r"\p{Han}", "".join(unspaced))
    return "zh" if len(chinese) >= _CHINESE * len(unspaced) else "char"


def score_texts(
    texts: Sequence[str], references: Sequence[Sequence[str]], tokenizer: TextTokenizer | None = None
) -> dict[str, np.ndarray]:
    """Sentence BLEU and ROUGE-L of each text.

    Args:
        texts: generated texts; an empty one scores 0.
        references: for each text its references.
        tokenizer: what makes tokens of both; None: what all these references ask for, see `text_tokenizer_of`.

    Returns:
        `bleu`: sacrebleu sentence BLEU with effective order over all references, 0 to 100; `rougeL`: F1
        against the best reference, 0 to 1. Both `[texts]` float32.
    """
    chosen = tokenizer or text_tokenizer_of(each for wanted in references for each in wanted)
    bleu, rouge = _scorers(chosen)
    scores = {name: np.zeros(len(texts), dtype=np.float32) for name in ("bleu", "rougeL")}
    for index, (text, wanted) in enumerate(zip(texts, references, strict=True)):
        if text.strip():
            text, wanted = _composed(text), [_composed(each) for each in wanted]
            scores["bleu"][index] = bleu.sentence_score(text, list(wanted)).score
            scores["rougeL"][index] = max(rouge.score(each, text)["rougeL"].fmeasure for each in wanted)
    return scores


def _composed(text: str) -> str:
    """Letters with their accents as one character where there is one: two ways to write the same text are equal."""
    return unicodedata.normalize("NFC", text)
