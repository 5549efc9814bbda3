"""Projected gradients of the base model's loss: what an example would do to the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gptdynamics.examples import Example

WIDTH = 2048


class GradientEncoder:
    """The gradient of an example's loss at the base model's weights, sketched to `width` numbers.

    The sketch adds each coordinate, with a random sign, to a random bucket, so inner products of vectors
    are unbiased estimates of inner products of gradients over all trainable parameters.

    Args:
        base_model: name of the base model.
        width: buckets.
        seed: of signs and buckets.
    """

    def __init__(self, base_model: str, width: int = WIDTH, seed: int = 0) -> None:
        self.base_model = base_model
        self.width = width
        self.seed = seed

    def describe(self) -> dict[str, Any]:
        """Its name, base model with revision, width and seed."""
        from gptdynamics.base_model import base_model_source, model_revision

        revision = model_revision(base_model_source(self.base_model))
        return {
            "encoder": "gradient",
            "model": self.base_model,
            "revision": revision,
            "width": self.width,
            "seed": self.seed,
        }

    def _sketches(self, model: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Each trainable parameter with its buckets and signs, drawn from its name and the seed."""
        import torch

        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
                generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
                bucket = torch.randint(self.width, (parameter.numel(),), generator=generator)
                sign = torch.randint(2, (parameter.numel(),), generator=generator).float() * 2 - 1
                yield parameter, bucket, sign

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, width]`, one backward pass an example."""
        import torch

        from gptdynamics.base_model import load_base_model
        from gptdynamics.measurement import example_losses
        from gptdynamics.measurement.loss import target_logits
        from gptdynamics.tasks import get_task
        from gptdynamics.tokens import make_target_batch, tokenize_example

        base = load_base_model(self.base_model)
        sketches = list(self._sketches(base.model))
        vectors = np.zeros((len(examples), self.width), dtype=np.float32)
        for at, example in enumerate(examples):
            ends = get_task(example.task).generates
            tokenized = tokenize_example(base.tokenizer, example, base.context, ends)
            batch = make_target_batch([tokenized], [0])
            base.model.zero_grad()
            example_losses(target_logits(base.model, batch), batch).sum().backward()
            vector = torch.zeros(self.width)
            for parameter, bucket, sign in sketches:
                if parameter.grad is not None:
                    vector.index_add_(0, bucket, parameter.grad.flatten() * sign)
            vectors[at] = vector.numpy()
        return vectors
