"""Encoder vectors of a config's pool and test examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.gradient_reading import read_vectors
from gptdynamics.errors import DataError
from simulator.encoders import PART, Encoder, encode_cached


@dataclass(frozen=True)
class RunVectors:
    """The encoder's description, and float32 vectors of pool and test examples, `[N, E]` and `[M, E]`."""

    encoder: dict[str, Any]
    pool: np.ndarray
    test: np.ndarray


def parts_of(runs: Dynamics) -> int:
    """How often `run_vectors` calls `on_part`."""
    return -(-len(runs.pool) // PART) - (-len(runs.test) // PART)


def check_targets(kind: str, runs: Dynamics) -> None:
    """See that examples have what vectors of a kind are made of; imported ones may not say where the prompt ends.

    Raises:
        DataError: they have no targets, and the encoder needs them.
    """
    if kind in ("gradient", "label") and not all(each.target or each.withheld for each in runs.pool):
        raise DataError(
            f"{runs.config}: its examples have no targets of their own, which {kind} vectors are made of: give "
            "--encoder sentence"
        )


def run_vectors(encoder: Encoder, runs: Dynamics, on_part: Callable[[], None] = lambda: None) -> RunVectors:
    """Encode the examples of runs; vectors in the cache are read. `on_part` is called `parts_of(runs)` times.

    Where a release leaves texts out, gradient vectors are those that it has.

    Raises:
        DataError: examples have no texts, and there are no vectors of them.
    """
    description = encoder.describe()
    kind = description["encoder"]
    if kind == "index":
        return RunVectors(description, encoder.encode(runs.pool), encoder.encode(runs.test))
    withheld = any(example.withheld for example in (*runs.pool, *runs.test))
    if kind == "gradient" and withheld:
        return _published(description, runs)
    pool, test = (encode_cached(encoder, examples, on_part) for examples in (runs.pool, runs.test))
    return RunVectors(description, pool, test)


def _published(description: dict[str, Any], runs: Dynamics) -> RunVectors:
    stored = read_vectors(runs.source, runs.config)
    if stored is None:
        raise DataError(
            f"{runs.config}: its texts are withheld and it has no gradient vectors; fill the texts in, or train with "
            "--dynamics markov --encoder index, which needs neither"
        )
    sides = []
    for part, examples, vectors in (("pool", runs.pool, stored.pool), ("test", runs.test, stored.test)):
        missing = [example.id for example in examples if example.id not in vectors]
        if missing:
            raise DataError(f"{runs.config}: {part} example {missing[0]} has neither a text nor a gradient vector")
        sides.append(np.stack([vectors[example.id] for example in examples]).astype(np.float32))
    described = description | {"revision": runs.base_revision, "width": stored.width, "seed": stored.seed}
    described["tokenization"] = runs.tokenization
    return RunVectors(described, *sides)
