"""Encoders: what their vectors mean, and the cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdynamics.base_model import load_base_model
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.tasks import get_task, load_examples
from simulator.encoders import ENCODERS, encode_cached, make_encoder
from simulator.encoders.gradient import GradientEncoder
from simulator.encoders.label import LabelEncoder
from simulator.encoders.sentence import OFFLINE_PACKAGE, SentenceEncoder

MINILM_IS_HERE = importlib.util.find_spec(OFFLINE_PACKAGE) is not None
NEEDS_MINILM = pytest.mark.skipif(not MINILM_IS_HERE, reason=f"{OFFLINE_PACKAGE} (the offline extra) is not installed")


def texts(*pairs: tuple[str, str]) -> list[Example]:
    return [Example(number, prompt, target) for number, (prompt, target) in enumerate(pairs)]


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Label and generation examples."""
    sentiment = load_examples(get_task("mini_sentiment"), "pool", 4)
    return [*sentiment, *load_examples(get_task("mini_triples"), "pool", 2)]


def exact_gradients(folder: Path, examples: Sequence[Example]) -> np.ndarray:
    """Gradient of each example's mean loss over its target tokens, all parameters in one row."""
    base = load_base_model(str(folder))
    gradients = []
    for example in examples:
        prompt, target = (
            base.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (example.prompt, example.target)
        )
        if get_task(example.task).generates:
            target = [*target, base.tokenizer.eos_token_id]
        cut = max(0, len(prompt) + len(target) - base.context)
        ids = [*prompt[cut:], *target]
        base.model.zero_grad()
        logits = base.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        loss = -sum(logits[len(ids) - len(target) - 1 + at, token] for at, token in enumerate(target)) / len(target)
        loss.backward()
        used = [p.grad for p in base.model.parameters() if p.requires_grad and p.grad is not None]
        gradients.append(torch.cat([grad.flatten() for grad in used]).numpy())
    return np.stack(gradients)


@pytest.mark.parametrize("width", [512, 8192])
def test_inner_products_of_sketches_are_those_of_gradients(
    width: int, rows: list[Example], tiny_model_folder: Path
) -> None:
    exact = exact_gradients(tiny_model_folder, rows)
    sketch = GradientEncoder(str(tiny_model_folder), width).encode(rows)
    assert sketch.shape == (len(rows), width)
    assert sketch.dtype == np.float32
    size = np.linalg.norm(exact, axis=1)
    error = (sketch @ sketch.T - exact @ exact.T) / np.outer(size, size)
    assert np.abs(error).max() < 6 / np.sqrt(width)


def test_another_seed_gives_another_sketch_and_on_average_the_exact_inner_products(
    rows: list[Example], tiny_model_folder: Path
) -> None:
    chosen = rows[:3]
    exact = exact_gradients(tiny_model_folder, chosen)
    width, seeds = 128, 24
    sketches = [GradientEncoder(str(tiny_model_folder), width, seed).encode(chosen) for seed in range(seeds)]
    assert not np.allclose(sketches[0], sketches[1])
    mean = np.mean([sketch @ sketch.T for sketch in sketches], axis=0)
    size = np.linalg.norm(exact, axis=1)
    assert np.abs((mean - exact @ exact.T) / np.outer(size, size)).max() < 6 / np.sqrt(width * seeds)


def test_coordinates_are_added_with_random_signs(rows: list[Example], tiny_model_folder: Path) -> None:
    one_bucket = [GradientEncoder(str(tiny_model_folder), 1, seed).encode(rows[:1]) for seed in range(4)]
    assert len({float(vector[0, 0]) for vector in one_bucket}) == 4


def test_a_sketch_depends_on_the_example_alone(rows: list[Example], tiny_model_folder: Path) -> None:
    together = GradientEncoder(str(tiny_model_folder), 64).encode(rows)
    backwards = GradientEncoder(str(tiny_model_folder), 64).encode(rows[::-1])[::-1]
    alone = [GradientEncoder(str(tiny_model_folder), 64).encode([row])[0] for row in rows[:2]]
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together[:2], alone)


def test_the_gradient_sees_prompt_target_and_end_of_text(rows: list[Example], tiny_model_folder: Path) -> None:
    row = rows[0]
    other_target = " negative" if row.target == " positive" else " positive"
    variants = [
        row,
        replace(row, prompt=row.prompt.replace("Sentiment", "Feeling")),
        replace(row, target=other_target),
        replace(row, task="mini_triples", references=("text",)),
    ]
    vectors = GradientEncoder(str(tiny_model_folder), 64).encode(variants)
    for at in range(1, len(variants)):
        assert not np.allclose(vectors[0], vectors[at])


def test_a_gradient_encoder_says_which_weights_it_used(tiny_model_folder: Path) -> None:
    described = GradientEncoder(str(tiny_model_folder), 64, seed=3).describe()
    assert described == {
        "encoder": "gradient",
        "model": str(tiny_model_folder),
        "revision": load_base_model(str(tiny_model_folder)).revision,
        "width": 64,
        "seed": 3,
    }


def test_the_label_encoder_sees_only_the_target() -> None:
    vectors = LabelEncoder().encode(texts(("a", " yes"), ("b", " yes"), ("a", " no"), ("a", "yes")))
    assert vectors.shape == (4, 64)
    assert set(np.unique(vectors)) == {-1.0, 1.0}
    np.testing.assert_array_equal(vectors[0], vectors[1])
    for other in (2, 3):
        assert abs(vectors[0] @ vectors[other]) < 32


@pytest.fixture(scope="module")
def sentence() -> SentenceEncoder:
    return SentenceEncoder()


@NEEDS_MINILM
def test_sentence_vectors_have_width_384_and_unit_length(sentence: SentenceEncoder) -> None:
    vectors = sentence.encode(texts(("Review: a dull film.\nSentiment:", " negative"), ("x", " y")))
    assert vectors.shape == (2, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@NEEDS_MINILM
def test_paraphrases_are_closer_than_unrelated_sentences(sentence: SentenceEncoder) -> None:
    film, movie, bread = sentence.encode(
        texts(
            ("The film was boring and", " far too long."),
            ("The movie was tedious and", " went on forever."),
            ("Knead the dough and leave it", " in a warm place."),
        )
    )
    assert film @ movie > max(film @ bread, movie @ bread) + 0.3


@NEEDS_MINILM
def test_sentence_vectors_see_prompt_and_target(sentence: SentenceEncoder) -> None:
    vectors = sentence.encode(texts(("The film was", " wonderful"), ("The film was", " dreadful"), ("Bread", " rises")))
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)


@NEEDS_MINILM
def test_long_texts_are_read_up_to_512_tokens(sentence: SentenceEncoder) -> None:
    start = "rain " * 300
    vectors = sentence.encode(texts((start, "sun " * 50), (start, "war " * 50), (start * 3, "a"), (start * 3, "b")))
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)
    np.testing.assert_allclose(vectors[2], vectors[3], atol=1e-6)


def test_a_sentence_model_that_cannot_be_had_is_said_in_words() -> None:
    encoder = SentenceEncoder("no-such-owner/no-such-model")
    with pytest.raises(DataError, match=r"no-such-owner/no-such-model.*offline"):
        encoder.encode(texts(("a", "b")))


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_has_its_name_in_its_description(kind: str, tiny_model_folder: Path) -> None:
    encoder = make_encoder(kind, str(tiny_model_folder), seed=5)
    assert encoder.describe()["encoder"] == kind


def test_the_seed_reaches_the_gradient_encoder(tiny_model_folder: Path) -> None:
    assert make_encoder("gradient", str(tiny_model_folder), seed=5).describe()["seed"] == 5


def test_an_unknown_encoder_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"'bert'.*sentence, gradient, label"):
        make_encoder("bert", "nano")


class Counting:
    """An encoder that counts how often it is asked."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.calls = 0

    def describe(self) -> dict[str, Any]:
        return {"encoder": self.name}

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        self.calls += 1
        return np.array([[len(example.prompt), len(example.target)] for example in examples], dtype=np.float64)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path))
    return tmp_path


PAIRS = texts(("a b", " c"), ("d", " e f"))


def test_what_was_encoded_once_is_read_from_the_cache(cache: Path) -> None:
    encoder = Counting()
    first, second = encode_cached(encoder, PAIRS), encode_cached(encoder, PAIRS)
    assert encoder.calls == 1
    assert first.dtype == second.dtype == np.float32
    np.testing.assert_array_equal(first, [[3, 2], [1, 4]])
    np.testing.assert_array_equal(first, second)
    assert [path.suffix for path in (cache / "encodings").iterdir()] == [".npy"]


def test_other_texts_another_order_and_another_encoder_are_encoded_anew(cache: Path) -> None:
    encoder, other = Counting(), Counting("other")
    for examples in (PAIRS, PAIRS[:1], PAIRS[::-1], texts(("a", " b c"), ("d", " e f"))):
        np.testing.assert_array_equal(encode_cached(encoder, examples), Counting().encode(examples))
    encode_cached(other, PAIRS)
    assert (encoder.calls, other.calls) == (4, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[: len(content) - 4],
        lambda content: b"no array at all",
        lambda content: b"PK\x03\x04" + content,
    ],
    ids=["empty", "cut in the header", "cut in the numbers", "other content", "like a zip"],
)
def test_a_damaged_cache_file_is_made_again(cache: Path, damage: Any) -> None:
    encoder = Counting()
    wanted = encode_cached(encoder, PAIRS)
    [path] = (cache / "encodings").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    np.testing.assert_array_equal(encode_cached(encoder, PAIRS), wanted)
    assert encoder.calls == 2
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(blocked))
    with pytest.raises(DataError, match="cannot write"):
        encode_cached(Counting(), PAIRS)
