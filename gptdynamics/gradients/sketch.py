"""Gradients of single examples, reduced to a few hundred numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.gradients.products import example_gradients
from gptdynamics.models.tokens import TokenizedExample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class GradientSketch:
    """A count sketch: each coordinate, with a random sign, is added to a random bucket.

    Inner products of sketches are unbiased estimates of inner products of gradients over all trainable parameters.

    Args:
        width: number of buckets.
        seed: of signs and buckets, together with each parameter's name.
    """

    def __init__(self, width: int, seed: int) -> None:
        self.width = width
        self.seed = seed

    def _draws(self, name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        bucket = torch.randint(self.width, (size,), generator=generator)
        return bucket, torch.randint(2, (size,), generator=generator).float() * 2 - 1

    def project(self, model: PreTrainedModel, examples: Sequence[TokenizedExample]) -> np.ndarray:
        """The sketch of each example's loss gradient at the model's weights: `[examples, width]` float32."""
        trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        draws = [tuple(part.to(model.device) for part in self._draws(name, value.numel())) for name, value in trained]
        vectors = np.zeros((len(examples), self.width), dtype=np.float32)
        for index, gradient in enumerate(example_gradients(model, examples)):
            vector = torch.zeros(self.width, device=model.device)
            for (bucket, sign), part in zip(draws, gradient, strict=True):
                vector.index_add_(0, bucket, part.flatten() * sign)
            vectors[index] = vector.cpu().numpy()
        return vectors
