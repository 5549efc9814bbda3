"""What an encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gptdynamics.examples import Example


class Encoder(Protocol):
    """A frozen map from examples to vectors; prompt and target are both seen."""

    def describe(self) -> dict[str, Any]:
        """Everything that the vectors depend on, as plain values."""
        ...

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, width]` float32."""
        ...
