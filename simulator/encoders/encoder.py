"""What an encoder is, and the cache of what encoders gave."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gptdynamics.atomic import write_atomically
from gptdynamics.examples import Example


class Encoder(Protocol):
    """A frozen map from examples to vectors; prompt and target are both seen."""

    def describe(self) -> dict[str, Any]:
        """Everything that the vectors depend on, as plain values."""
        ...

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, width]` float32."""
        ...


def _cache_folder() -> Path:
    root = os.environ.get("GPTDYNAMICS_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "gptdynamics"


def encode_cached(encoder: Encoder, examples: Sequence[Example]) -> np.ndarray:
    """Encode, or read what the same encoder gave for the same texts before.

    The cache is in `$GPTDYNAMICS_CACHE`, by default `~/.cache/gptdynamics`.
    """
    content = [encoder.describe(), [(example.task, example.prompt, example.target) for example in examples]]
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    path = _cache_folder() / "encodings" / f"{key}.npy"
    if path.exists():
        try:
            with path.open("rb") as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except (OSError, ValueError):
            path.unlink(missing_ok=True)
    vectors = encoder.encode(examples).astype(np.float32)

    def write(target: Path) -> None:
        with target.open("wb") as stream:
            np.save(stream, vectors, allow_pickle=False)

    write_atomically(path, write)
    return vectors
