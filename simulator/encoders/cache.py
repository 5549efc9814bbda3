"""Encoder vectors in the cache, each under what its example says.

The entries of an encoder are parts of at most `PART` rows, a key and a vector each, and are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gptdynamics.cache import ENCODINGS, Entries, content_digest
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from simulator.encoders.encoder import Encoder

# Rows encoded between two writes: what an interrupted encoding loses at most.
PART = 256
_KEY = "S32"


def encode_cached(
    encoder: Encoder, examples: Sequence[Example], on_part: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Encode what the same encoder was not asked before, and read the rest: `[examples, width]` float32.

    An example is known by its task, prompt and target. The cache is in `$GPTDYNAMICS_CACHE`, by default
    `~/.cache/gptdynamics`.

    Args:
        encoder: what encodes.
        examples: with texts.
        on_part: called after every `PART` examples, and after the last ones.

    Raises:
        DataError: an example's texts are withheld, or the cache cannot be written.
    """
    for example in examples:
        if example.withheld:
            raise DataError(
                f"{example.task} example {example.id} has no text to encode: this release leaves texts out. Fill them "
                "in from the rows of the task; index vectors need none, nor do gradient vectors that the release has"
            )
    keys = [content_digest([example.task, example.prompt, example.target]).encode() for example in examples]
    parts = ENCODINGS.entries(encoder.describe())
    vectors = _load(parts, set(keys))
    for begin in range(0, len(keys), PART):
        missing = {
            key: example
            for key, example in zip(keys[begin : begin + PART], examples[begin : begin + PART], strict=True)
            if key not in vectors
        }
        if missing:
            made = encoder.encode(list(missing.values())).astype(np.float32)
            _save(parts, list(missing), made)
            vectors.update(zip(missing, made, strict=True))
        on_part()
    return np.stack([vectors[key] for key in keys])


def _load(parts: Entries, keys: set[bytes]) -> dict[bytes, np.ndarray]:
    """The vectors of these keys, as far as they are there."""
    vectors: dict[bytes, np.ndarray] = {}
    if keys:
        for rows in parts.load_all(lambda path: np.load(path, allow_pickle=False)):
            vectors |= {
                key: vector for key, vector in zip(rows["key"].tolist(), rows["vector"], strict=True) if key in keys
            }
            if len(vectors) == len(keys):
                break
    return vectors


def _save(parts: Entries, keys: list[bytes], vectors: np.ndarray) -> None:
    rows = np.empty(len(keys), dtype=[("key", _KEY), ("vector", np.float32, vectors.shape[1:])])
    rows["key"], rows["vector"] = keys, vectors

    def write(target: Path) -> None:
        with target.open("wb") as stream:
            np.save(stream, rows, allow_pickle=False)

    parts.save([key.decode() for key in keys], write)
