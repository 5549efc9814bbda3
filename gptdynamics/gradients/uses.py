"""The contribution of one use of a parameter in a forward pass to each example's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MatrixUse:
    """A use of a matrix that tokens are multiplied by, or whose rows they look up.

    An example's gradient is the sum over its tokens of the outer products of `left` and `right`. Padding is zero on at
    least one of the two sides.

    Attributes:
        left: `[rows, tokens, height]` float; or `[rows, tokens]` integers, which stand for one-hot vectors.
        right: `[rows, tokens, width]`.
        block: index of the matrix in a stack of matrices (experts); 0 if there is only one.
    """

    left: torch.Tensor
    right: torch.Tensor
    block: int = 0

    @property
    def one_hot(self) -> bool:
        """Whether `left` holds the indices of rows that are looked up."""
        return not self.left.is_floating_point()

    def row(self, index: int) -> MatrixUse:
        """The use of one row."""
        return MatrixUse(self.left[index : index + 1], self.right[index : index + 1], self.block)


@dataclass(frozen=True)
class VectorUse:
    """Each example's gradient itself: `[rows, numbers]`."""

    values: torch.Tensor

    def row(self, index: int) -> VectorUse:
        """The use of one row."""
        return VectorUse(self.values[index : index + 1])


Use = MatrixUse | VectorUse


def whole_gradients(uses: list[Use], shape: torch.Size) -> torch.Tensor:
    """The gradients of a parameter of this shape, computed from its uses: `[rows, numbers]`."""
    total: torch.Tensor | None = None
    for use in uses:
        if isinstance(use, VectorUse):
            gradient = use.values
        elif use.one_hot:
            gradient = use.right.new_zeros(use.right.size(0), *shape)
            row = torch.arange(use.right.size(0), device=use.right.device).unsqueeze(1).expand_as(use.left)
            gradient.index_put_((row, use.left), use.right, accumulate=True)
            gradient = gradient.flatten(1)
        else:
            matrix = torch.bmm(use.left.mT, use.right)
            if len(shape) == 3:
                stack = matrix.new_zeros(matrix.size(0), *shape)
                stack[:, use.block] = matrix
                matrix = stack
            gradient = matrix.flatten(1)
        total = gradient if total is None else total + gradient
    assert total is not None
    return total


@dataclass(frozen=True)
class Scale:
    """Factors that a parameter's gradients are multiplied by, so that their products are preconditioned.

    Attributes:
        left: `[blocks, height]` of a matrix, `[1, numbers]` of a vector.
        right: `[blocks, width]`; None for a vector.
    """

    left: torch.Tensor
    right: torch.Tensor | None

    @classmethod
    def of_second_moment(cls, moment: torch.Tensor, epsilon: float) -> Scale:
        """The scale of an optimiser's mean squared gradient: products become those of g and g' / sqrt(moment).

        A matrix of moments is replaced by the outer product of its row means and column means divided by its mean, as
        in Adafactor. The square of epsilon is added to every moment.
        """
        moment = moment.detach().float() + epsilon**2
        if moment.dim() < 2:
            return cls(moment.flatten().unsqueeze(0).pow(-0.25), None)
        stack = moment.reshape(-1, *moment.shape[-2:])
        mean = stack.mean((1, 2)).unsqueeze(1)
        return cls(stack.mean(2).pow(-0.25), (stack.mean(1) / mean).pow(-0.25))

    def whole(self, shape: torch.Size) -> torch.Tensor:
        """The factor of each value of the parameter, in its shape."""
        if self.right is None:
            return self.left.reshape(shape)
        return (self.left.unsqueeze(2) * self.right.unsqueeze(1)).reshape(shape)

    def apply(self, use: Use) -> Use:
        """The use with its gradients multiplied."""
        if isinstance(use, VectorUse):
            return VectorUse(use.values * self.whole(use.values.shape[1:]))
        assert self.right is not None
        right = use.right * self.right[use.block]
        if use.one_hot:
            return MatrixUse(use.left, right * self.left[0][use.left].unsqueeze(2))
        return MatrixUse(use.left * self.left[use.block], right, use.block)
