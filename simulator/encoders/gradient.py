"""Projected gradients of the base model's loss: what an example would do to the weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gptdynamics.configs import Tokenization
from gptdynamics.examples import Example

if TYPE_CHECKING:
    from gptdynamics.models.base_model import BaseModel

WIDTH = 2048


class GradientEncoder:
    """The gradient of an example's loss at the base model's weights, sketched to `width` numbers.

    The sketch adds each coordinate, with a random sign, to a random bucket, so inner products of vectors
    are unbiased estimates of inner products of gradients over all trainable parameters.

    Args:
        base_model: name of the base model.
        width: buckets.
        seed: of signs and buckets.
        tokenization: of prompt and target, as the runs were trained; see `gptdynamics.models.tokens.tokenize_example`.
    """

    def __init__(
        self, base_model: str, width: int = WIDTH, seed: int = 0, tokenization: Tokenization = "joined"
    ) -> None:
        self.base_model = base_model
        self.width = width
        self.seed = seed
        self.tokenization = tokenization

    def describe(self) -> dict[str, Any]:
        """Its name, base model with revision, width, seed and tokenization."""
        from gptdynamics.models.base_model import model_revision

        revision = model_revision(self.base_model)
        return {
            "encoder": "gradient",
            "model": self.base_model,
            "revision": revision,
            "width": self.width,
            "seed": self.seed,
            "tokenization": self.tokenization,
        }

    @cached_property
    def base(self) -> BaseModel:
        """The loaded base model.

        Raises:
            SettingsError: it is neither a folder nor on a reachable Hub.
        """
        from gptdynamics.models.base_model import load_base_model
        from gptdynamics.runs.devices import worker_devices

        return load_base_model(self.base_model, worker_devices("auto")[0])

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, width]`, one backward pass an example."""
        from gptdynamics.gradients import GradientSketch
        from gptdynamics.models.tokens import ExampleTokenizer

        tokenize = ExampleTokenizer(self.base, self.base.context, self.tokenization)
        tokenized = [tokenize(example) for example in examples]
        return GradientSketch(self.width, self.seed).project(self.base.model, tokenized)
