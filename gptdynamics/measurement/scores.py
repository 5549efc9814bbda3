"""BLEU and ROUGE-L of generated text against references, in words or characters depending on the script.

Text tokenizers have sacrebleu's names; sacrebleu tokenises for BLEU. For ROUGE-L, `13a` stands for rouge-score's own
tokenizer: runs of the letters a-z and of digits. As that finds nothing in most other scripts, the other names stand for
words of any script, and single characters of scripts without spaces. Composed and decomposed accents are equal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from gptdynamics.configs import TextTokenizer

# Scripts without spaces between words, and the mark that lengthens a kana, which belongs to no script.
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
# Up to these shares of letters, another script counts as a foreign name or a quotation.
_FEW_FOREIGN, _FEW_UNSPACED = 0.01, 0.1
# Chinese has at least this share of Han letters. Japanese has a third of kana and more.
_CHINESE = 0.9


@cache
def _patterns() -> tuple[Any, Any]:
    import regex

    return regex.compile(_PATTERN), regex.compile(r"\X")


class UnicodeWords:
    """The tokenizer of ROUGE-L for texts of any script; equal to rouge-score's own on ASCII text."""

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case, single characters of scripts without spaces, and emoji.

        A text without any of these, such as dots alone, is split into its characters. The encoding of accents makes no
        difference.
        """
        words, characters = _patterns()
        text = _composed(text.lower())
        tokens: list[str] = words.findall(text)
        return tokens or [character for character in characters.findall(text) if not character.isspace()]


@cache
def _scorers(tokenizer: TextTokenizer) -> tuple[Any, Any]:
    from rouge_score import rouge_scorer
    from sacrebleu.metrics import BLEU

    words = None if tokenizer == "13a" else UnicodeWords()
    return BLEU(effective_order=True, tokenize=tokenizer), rouge_scorer.RougeScorer(["rougeL"], tokenizer=words)


def text_tokenizer_of(references: Iterable[str]) -> TextTokenizer:
    """The text tokenizer that suits the script of references.

    Args:
        references: of one task.

    Returns:
        `13a` for English and other Latin text with few letters beyond Latin-1, unless it would find no token in one of
        the references; `zh` for Chinese; `char` for Japanese, Thai and other scripts without spaces; `intl` for all
        else.
    """
    import regex

    texts = [_composed(text) for text in references]
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    foreign = sum(letter > "\u00ff" for letter in letters)
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
        tokenizer: for both scores; None: chosen by the script of all references, see `text_tokenizer_of`.

    Returns:
        `bleu`: sacrebleu sentence BLEU with effective order over all references, 0 to 100; `rougeL`: F1
        against the best reference, 0 to 1. Both `[texts]` float32.
    """
    chosen = tokenizer or text_tokenizer_of(
        reference for text_references in references for reference in text_references
    )
    bleu, rouge = _scorers(chosen)
    scores = {name: np.zeros(len(texts), dtype=np.float32) for name in ("bleu", "rougeL")}
    for index, (text, text_references) in enumerate(zip(texts, references, strict=True)):
        if text.strip():
            text, text_references = _composed(text), [_composed(reference) for reference in text_references]
            scores["bleu"][index] = bleu.sentence_score(text, list(text_references)).score
            scores["rougeL"][index] = max(
                rouge.score(reference, text)["rougeL"].fmeasure for reference in text_references
            )
    return scores


def _composed(text: str) -> str:
    """The text with composed accents (NFC), so that two encodings of one text are equal."""
    return unicodedata.normalize("NFC", text)
