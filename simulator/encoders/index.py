"""Only which example it is: with it, and order 1, markov is Simfluence (section 3.3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gptdynamics.examples import Example


class IndexEncoder:
    """The place of an example among those given: a one-hot vector, written as the place of its one.

    Nothing is known of an example by it but that it is another one: a factor of each pair is learned by itself.
    """

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"encoder": "index"}

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Places `[examples, 1]` from 0 on."""
        return np.arange(len(examples), dtype=np.float32)[:, None]
