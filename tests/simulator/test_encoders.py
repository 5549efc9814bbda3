"""Encoders: what their vectors mean."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.models.base_model import load_base_model
from gptdynamics.tasks import get_task, load_examples
from simulator.encoders import ENCODERS, described_encoder, encode_cached, make_encoder
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
        "tokenization": "joined",
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


def slow_states(folder: Path, example: Example) -> np.ndarray:
    """Last hidden states of one example alone: `[tokens, width]`."""
    base = load_base_model(str(folder))
    ids = [
        token
        for text in (example.prompt, example.target)
        for token in base.tokenizer(text, add_special_tokens=False)["input_ids"]
    ]
    with torch.no_grad():
        found = base.model(torch.tensor([ids[-base.context :]]), output_hidden_states=True)
    return found.hidden_states[-1][0].numpy()


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_causal_lm_vectors_are_pooled_states_of_the_last_layer(
    pooling: str, rows: list[Example], tiny_model_folder: Path
) -> None:
    examples = [*rows, Example(9, "word " * 3000, " end", task="mini_sentiment")]
    encoder = make_encoder("causal_lm", "nano", model=str(tiny_model_folder), pooling=pooling)
    found = encoder.encode(examples)
    for vector, example in zip(found, examples, strict=True):
        states = slow_states(tiny_model_folder, example)
        wanted = {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pooling]
        np.testing.assert_allclose(vector, wanted, rtol=1e-4, atol=1e-5)


def test_causal_lm_is_the_base_model_unless_another_is_named(tiny_model_folder: Path) -> None:
    described = make_encoder("causal_lm", str(tiny_model_folder)).describe()
    revision = load_base_model(str(tiny_model_folder)).revision
    assert described == {
        "encoder": "causal_lm",
        "model": str(tiny_model_folder),
        "revision": revision,
        "pooling": "mean",
        "tokenization": "joined",
    }


def test_causal_lm_vectors_of_nano() -> None:
    vectors = make_encoder("causal_lm", "nano").encode(texts(("The film was", " good"), ("The film was", " bad")))
    assert vectors.shape == (2, load_base_model("nano").model.config.hidden_size)
    assert not np.allclose(vectors[0], vectors[1])


@pytest.mark.parametrize("kind", ["causal_lm", "sentence", "gradient"])
def test_a_model_that_is_nowhere_is_named(kind: str) -> None:
    missing = "no-such-owner/no-such-model"
    encoder = make_encoder(kind, missing, model=None if kind == "gradient" else missing)
    with pytest.raises(GPTDynamicsError, match=missing):
        encode_cached(encoder, texts(("a b", " c")))


@pytest.mark.parametrize(
    ("kind", "model", "pooling", "message"),
    [
        ("bert", None, None, "unknown encoder 'bert'; known encoders: sentence, causal_lm, gradient, label, index"),
        ("gradient", "nano", None, "encoder_model='nano' is a setting of sentence and causal_lm encoders, not of grad"),
        ("label", None, "mean", "pooling='mean' is a setting of"),
        ("sentence", None, "max", "pooling='max' must be one of mean, first, last"),
        ("sentence", None, "last", "'last' is for causal_lm"),
    ],
)
def test_settings_that_an_encoder_does_not_have_are_refused(
    kind: str, model: str | None, pooling: str | None, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make_encoder(kind, "nano", model=model, pooling=pooling)


@NEEDS_MINILM
def test_pooling_of_sentence_vectors(sentence: SentenceEncoder) -> None:
    examples = texts(("Review: a dull film.\nSentiment:", " negative"), ("x", " y"))
    own = sentence.encode(examples)
    np.testing.assert_allclose(SentenceEncoder(pooling="mean").encode(examples), own, atol=1e-5)
    first = SentenceEncoder(pooling="first").encode(examples)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    assert not np.allclose(first, own, atol=1e-2)


@NEEDS_MINILM
def test_any_sentence_transformers_folder(sentence: SentenceEncoder, tmp_path: Path) -> None:
    sentence.model.save(str(tmp_path / "copy"))
    copied = make_encoder("sentence", "nano", model=str(tmp_path / "copy"))
    examples = texts(("Bread", " rises"))
    np.testing.assert_allclose(copied.encode(examples), sentence.encode(examples), atol=1e-6)
    assert len(copied.describe()["revision"]) == 12


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("causal_lm", {"pooling": "last"}),
        ("gradient", {"seed": 3}),
        ("label", {}),
        ("sentence", {"pooling": "first"}),
        ("sentence", {}),
    ],
)
def test_an_encoder_is_made_again_from_its_description(
    kind: str, settings: dict[str, Any], tiny_model_folder: Path
) -> None:
    description = make_encoder(kind, str(tiny_model_folder), **settings).describe()
    assert described_encoder(description).describe() == description


def test_an_encoder_with_other_weights_than_described_is_refused(tiny_model_folder: Path) -> None:
    description = make_encoder("causal_lm", str(tiny_model_folder)).describe() | {"revision": "0123456789ab"}
    with pytest.raises(SettingsError, match=r"trained with encoder .*0123456789ab.*; here it would be"):
        described_encoder(description)


@pytest.mark.parametrize("kind", ["causal_lm", "gradient"])
def test_an_encoder_described_before_there_was_a_choice_tokenises_prompt_and_target_apart(
    kind: str, tiny_model_folder: Path
) -> None:
    description = make_encoder(kind, str(tiny_model_folder), tokenization="separate").describe()
    earlier = {name: value for name, value in description.items() if name != "tokenization"}
    assert described_encoder(earlier).describe() == description
    rows = [replace(row, task="rte") for row in texts(("Answer: ", "yes"))]
    joined, separate = (
        make_encoder(kind, str(tiny_model_folder), tokenization=rule) for rule in ("joined", "separate")
    )
    np.testing.assert_array_equal(described_encoder(earlier).encode(rows), separate.encode(rows))
    assert np.abs(joined.encode(rows) - separate.encode(rows)).max() > 1e-3
