"""Only the target, hashed: how far one gets without looking at the prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptdynamics.examples import Example

WIDTH = 64


class LabelEncoder:
    """A random sign vector for each distinct target; nearly orthogonal between targets."""

    def describe(self) -> dict[str, Any]:
        """Its name and width."""
        return {"encoder": "label", "width": WIDTH}

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, 64]` of +1 and -1."""
        rows = []
        for example in examples:
            digest = hashlib.sha256(example.target.encode()).digest()
            bits = np.unpackbits(np.frombuffer(digest[: WIDTH // 8], dtype=np.uint8))
            rows.append(bits.astype(np.float32) * 2 - 1)
        return np.stack(rows)
