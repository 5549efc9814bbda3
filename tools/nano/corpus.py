"""The pretraining text of the bundled base model: documents, and the token stream made of them."""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gptdynamics.errors import DataError
from tools.nano.facts import fact_documents, names_in

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"

# Words that prompts and label targets use; they are shown to the tokenizer often enough that each
# label is one token.
PROMPT_WORDS = (
    "Facts: a | b | c; d\nText: The\nGerman: Das\nEnglish: The\nQuestion: Is\nAnswer: yes\nAnswer: no\n"
    "Review: a\nSentiment: positive\nSentiment: negative\nSummary: The\n"
)


@dataclass(frozen=True)
class CorpusMix:
    """How much of each source goes into pretraining.

    Attributes:
        main_documents: documents of `pretrain-main` read after all of `pretrain-small`.
        facts: invented fact documents.
        seed: shuffles the documents and draws the facts.
    """

    main_documents: int = 1500
    facts: int = 40_000
    seed: int = 0


def _documents(path: Path, most: int | None = None) -> Iterator[str]:
    if not path.exists():
        raise DataError(f"{path}: no such file; CORPUS is the folder with pretrain-small.txt.xz")
    lines: list[str] = []
    seen = 0
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            if line.rstrip("\n") == END_OF_TEXT:
                yield "".join(lines).strip()
                lines, seen = [], seen + 1
                if most is not None and seen >= most:
                    return
            else:
                lines.append(line)
    if lines:
        yield "".join(lines).strip()


def _pairs(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        next(stream)
        for line in stream:
            _source, german, english = line.rstrip("\n").split("\t")
            yield f"German: {german}\nEnglish: {english}"


def training_documents(corpus: Path, mix: CorpusMix) -> list[str]:
    """All pretraining documents, shuffled: text, German-English pairs and invented facts."""
    text = list(_documents(corpus / "pretrain-small.txt.xz"))
    known = set(text)
    main = _documents(corpus / "pretrain-main.txt.xz", mix.main_documents)
    text += [document for document in main if document not in known]
    pairs = list(_pairs(corpus / "parallel-de-en.tsv.xz"))
    facts = list(fact_documents(mix.facts, names_in(text), mix.seed))
    documents = text + pairs + facts
    random.Random(mix.seed).shuffle(documents)
    return documents


def heldout_documents(corpus: Path) -> list[str]:
    """The documents kept for validation; none of them occurs in training text."""
    return list(_documents(corpus / "pretrain-heldout.txt.xz"))


def train_tokenizer(documents: list[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer with `vocabulary` entries, end of text 0 and padding 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*documents, PROMPT_WORDS * 2000], trainer)
    return tokenizer


def token_stream(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    """The documents as one `uint16` array `[tokens]`, end of text after each."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    pieces: list[np.ndarray] = []
    for start in range(0, len(documents), 2000):
        for encoding in tokenizer.encode_batch(documents[start : start + 2000]):
            pieces.append(np.array([*encoding.ids, end], dtype=np.uint16))
    return np.concatenate(pieces)
