"""Gradients of examples multiplied by fixed random matrices, without computing whole gradients."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import torch

from gptdynamics.gradients.uses import MatrixUse, Use


class Projection:
    """Maps each parameter's gradients to at most `columns` x `columns` numbers.

    A matrix gradient G becomes P^T G Q, where P and Q have random signs divided by the square root of `columns`; a side
    not wider than `columns` is not projected. A vector of up to `columns` squared numbers is not projected; a longer
    one becomes a count sketch of that size. Inner products of the results are unbiased estimates of those of the
    gradients.

    Args:
        shapes: of the parameters, by name.
        columns: of the random matrices.
        seed: of the signs, together with each parameter's name.
        device: of the gradients.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], columns: int, seed: int, device: torch.device) -> None:
        self.shapes = shapes
        self.columns = columns
        self.seed = seed
        self.device = device
        self._sides: dict[tuple[str, str], torch.Tensor] = {}

    def project(self, name: str, uses: list[Use]) -> torch.Tensor:
        """The projected gradients of one parameter: `[rows, numbers]`."""
        parts = [
            self._matrix(name, use) if isinstance(use, MatrixUse) else self._vector(name, use.values) for use in uses
        ]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def width(self, name: str) -> int:
        """The number of values that a parameter's gradient becomes."""
        shape = self.shapes[name]
        if len(shape) < 2:
            return min(shape.numel(), self.columns**2)
        return min(shape[:-1].numel(), self.columns) * min(shape[-1], self.columns)

    def matrix_bytes(self, names: Sequence[str]) -> int:
        """Memory of the random matrices."""
        sides = [
            side for name in names if len(shape := self.shapes[name]) > 1 for side in (shape[:-1].numel(), shape[-1])
        ]
        return 4 * self.columns * sum(side for side in sides if side > self.columns)

    @property
    def exact(self) -> bool:
        """Whether nothing is projected."""
        return all(
            max(shape[:-1].numel(), shape[-1]) <= self.columns if len(shape) > 1 else shape.numel() <= self.columns**2
            for shape in self.shapes.values()
        )

    def _matrix(self, name: str, use: MatrixUse) -> torch.Tensor:
        shape = self.shapes[name]
        height, total = shape[-2], shape[:-1].numel()
        left = self._signs(name, "left", total)
        right = self._signs(name, "right", shape[-1])
        if left is None and (use.one_hot or total != height):
            left = torch.eye(total, device=self.device)
        if left is None:
            of_left = use.left
        elif use.one_hot:
            of_left = left[use.left]
        else:
            start = use.block * height
            of_left = use.left @ left[start : start + height]
        of_right = use.right if right is None else use.right @ right
        return torch.bmm(of_left.mT, of_right).flatten(1)

    def _vector(self, name: str, values: torch.Tensor) -> torch.Tensor:
        size, buckets = values.size(1), self.columns**2
        shape = self.shapes[name]
        if len(shape) > 1:
            # The whole gradient of a parameter that cannot be factored.
            height = shape[:-1].numel()
            left = self._signs(name, "left", height)
            right = self._signs(name, "right", shape[-1])
            matrix = values.reshape(-1, height, shape[-1])
            matrix = matrix if right is None else matrix @ right
            return (matrix if left is None else left.mT @ matrix).flatten(1)
        if size <= buckets:
            return values
        generator = self._generator(name, "sketch")
        bucket = torch.randint(buckets, (size,), generator=generator).to(self.device)
        sign = (torch.randint(2, (size,), generator=generator) * 2 - 1).to(values)
        return values.new_zeros(len(values), buckets).index_add_(1, bucket, values * sign)

    def _generator(self, name: str, side: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}:{side}:{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def _signs(self, name: str, side: str, width: int) -> torch.Tensor | None:
        """The random matrix of one side, `[width, columns]`; None if the side is not projected."""
        if width <= self.columns:
            return None
        key = (name, side)
        if key not in self._sides:
            bits = torch.randint(2, (width, self.columns), generator=self._generator(name, side), dtype=torch.int8)
            self._sides[key] = ((bits.to(self.device).float() * 2) - 1) / math.sqrt(self.columns)
        return self._sides[key]
