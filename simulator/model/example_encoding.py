"""Pool and test examples as dynamics need them: what a simulator stores of them, or what is made of new ones now."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .dynamics import EncodedExamples
from .tangent_dynamics import kernel_examples

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig


@dataclass(frozen=True)
class GivenExample:
    """An example that was given as names and values, such as a row of a `datasets.Dataset`."""

    id: int
    prompt: str
    target: str
    references: tuple[str, ...] = ()
    task: str = ""
    source: dict[str, str] = field(default_factory=dict)


def given_examples(examples: Iterable[Any] | None) -> Sequence[Any] | None:
    """Examples as objects; dictionaries, and rows of a `Dataset`, become some. Without ids they are numbered.

    Raises:
        ValueError: one lacks `prompt` or `target`, or an id is no whole number or occurs twice; the message says which.
    """
    if examples is None:
        return None
    converted = [
        _given_example(each, place) if isinstance(each, Mapping) else each for place, each in enumerate(examples)
    ]
    for place, each in enumerate(converted):
        if not all(hasattr(each, name) for name in ("id", "prompt", "target")):
            raise ValueError(
                f"example {place} is {each!r:.60}: give dictionaries or objects with id, prompt and target"
            )
    counts = Counter(each.id for each in converted if isinstance(each, GivenExample))
    if counts and max(counts.values()) > 1:
        raise ValueError(f"two examples have the id {counts.most_common(1)[0][0]}: give each its own")
    return converted


def _given_example(values: Mapping[str, Any], place: int) -> GivenExample:
    for name in ("prompt", "target"):
        if name not in values:
            raise ValueError(f"example {place} has no {name}, but {', '.join(values)}: give id, prompt and target")
    key = values.get("id", place)
    if not isinstance(key, int):
        raise ValueError(f"the id {key!r} of example {place} is not a whole number: leave ids out to number them")
    source = values.get("source") or {}
    return GivenExample(
        id=key,
        prompt=values["prompt"] or "",
        target=values["target"] or "",
        references=tuple(values.get("references") or ()),
        task=values.get("task") or "",
        source=json.loads(source) if isinstance(source, str) else dict(source),
    )


def content_key(example: Any) -> str:
    """What identifies an example by its texts, or by its source where those are withheld: 16 hex digits."""
    text = f"{example.prompt}\0{example.target}"
    source = getattr(example, "source", {})
    # A text without a prompt has references.
    if source and not example.prompt and not getattr(example, "references", ()):
        text = json.dumps(source, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def places_of(examples: Sequence[Any], keys: Sequence[str]) -> torch.Tensor:
    """Where each example stands among those of these content keys, or -1: `[n]`.

    Of keys that occur several times, the first stands for the first such example, and so on; the last for all further.
    """
    places: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    found: Counter[str] = Counter()
    result = []
    for example in examples:
        key = content_key(example)
        same = places.get(key, [-1])
        result.append(same[min(found[key], len(same) - 1)])
        found[key] += 1
    return torch.tensor(result, dtype=torch.long)


def with_vectors(
    config: GPTfluenceConfig,
    pool_vectors: torch.Tensor,
    test_vectors: torch.Tensor,
    pool: Sequence[Any] | None,
    test: Sequence[Any] | None,
) -> EncodedExamples:
    """Examples by encoder vectors; None: those trained on, whose vectors are stored."""
    seen = torch.arange(len(test_vectors)) if test is None else places_of(test, config.test_keys)
    if pool is not None:
        pool_vectors = _vectors(config, pool, config.pool_keys, pool_vectors)
    if test is not None:
        test_vectors = _vectors(config, test, config.test_keys, test_vectors)
    return EncodedExamples(pool_vectors, test_vectors, seen.to(test_vectors.device))


def _vectors(config: GPTfluenceConfig, examples: Sequence[Any], keys: list[str], stored: torch.Tensor) -> torch.Tensor:
    """Encoder vectors `[n, E]`: stored ones by content key, others encoded now."""
    places = places_of(examples, keys).to(stored.device)
    vectors = stored.new_zeros(len(examples), stored.size(1))
    vectors[places >= 0] = stored[places[places >= 0]]
    new = torch.nonzero(places < 0)[:, 0].tolist()
    if new:
        vectors[new] = torch.from_numpy(_encode(config, [examples[index] for index in new])).to(vectors)
    return vectors


def _encode(config: GPTfluenceConfig, examples: Sequence[Any]) -> np.ndarray:
    try:
        encoders = importlib.import_module("simulator.encoders")
    except ImportError as error:
        raise ImportError(
            f"{len(examples)} examples are new to this model; encoding them ({config.encoder.get('encoder')}) "
            "needs the gptdynamics package"
        ) from error
    vectors: np.ndarray = encoders.encode_cached(encoders.described_encoder(config.encoder), examples)
    if vectors.shape[1] != config.encoder_width:
        raise ValueError(f"encoder vectors have {vectors.shape[1]} numbers, the model's {config.encoder_width}")
    return vectors


def with_kernels(
    config: GPTfluenceConfig,
    stored: torch.Tensor,
    shares: torch.Tensor,
    pool: Sequence[Any] | None,
    test: Sequence[Any] | None,
    data: Path | None,
) -> EncodedExamples:
    """Examples by kernels; None: those trained on.

    Args:
        config: of the simulator.
        stored: `[P * G, N, M]` kernels of what it was trained on.
        shares: `[N, K]` of the pool that it was trained on in the patterns of own responses.
        pool, test: the examples; where one is new, reference runs are made again.
        data: folder with the rows of its tasks; None: generated rows or the Hub.
    """
    seen = torch.arange(stored.size(2)) if test is None else places_of(test, config.test_keys)
    rows = torch.arange(stored.size(1)) if pool is None else places_of(pool, config.pool_keys)
    if bool((rows >= 0).all()) and bool((seen >= 0).all()):
        own = stored[..., seen]
        return kernel_examples(own[:, rows], shares[rows], own, seen.to(stored.device))
    try:
        training = importlib.import_module("simulator.training.new_kernels")
    except ImportError as error:
        raise ImportError(
            "examples are new to this model; taking their gradients needs the gptdynamics package"
        ) from error
    kernels, shares, own = (
        each.to(stored.device) for each in training.new_kernels(config, stored, shares, pool, test, data)
    )
    return kernel_examples(kernels, shares, own, seen.to(stored.device))
