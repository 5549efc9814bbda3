"""Exact inner products of gradients that are sums over tokens of outer products."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gptdynamics.gradients.uses import MatrixUse, Use, whole_gradients

# The examples of one batch, and one parameter's uses in it.
BatchUses = tuple[list[int], list[Use]]


def squared_norms(uses: Sequence[Use]) -> torch.Tensor:
    """The squared norm of each row's gradient of one parameter: `[rows]`."""
    matrices = [use for use in uses if isinstance(use, MatrixUse)]
    total: torch.Tensor | float = 0.0
    for use in matrices:
        for other in matrices:
            if use.block == other.block:
                pairs = _left_products(use, other) * torch.bmm(use.right, other.right.mT)
                total = total + pairs.sum((1, 2))
    vectors = [use.values for use in uses if not isinstance(use, MatrixUse)]
    if vectors:
        total = total + torch.stack(vectors).sum(0).square().sum(1)
    assert isinstance(total, torch.Tensor)
    return total


def _left_products(use: MatrixUse, other: MatrixUse) -> torch.Tensor:
    """Inner products of the left factors of all pairs of a row's tokens: `[rows, tokens, tokens]`."""
    if use.one_hot and other.one_hot:
        return (use.left.unsqueeze(2) == other.left.unsqueeze(1)).float()
    if use.one_hot:
        return _left_products(other, use).mT
    if other.one_hot:
        return use.left.gather(2, other.left.unsqueeze(1).expand(-1, use.left.size(1), -1))
    return torch.bmm(use.left, other.left.mT)


def add_products(
    products: torch.Tensor, pool: Sequence[BatchUses], tests: Sequence[BatchUses], shape: torch.Size, memory: float
) -> None:
    """Add the inner products of one parameter's gradients to `[pool, tests]`.

    Computed by pairs of tokens, or with whole gradients, whichever takes fewer multiplications.

    Args:
        products: changed in place.
        pool: uses of the parameter in each batch of pool examples.
        tests: uses of the parameter in each batch of test examples.
        shape: of the parameter.
        memory: bytes that gradients may take up.
    """
    blocks = sorted({getattr(use, "block", -1) for _, uses in pool for use in uses})
    for block in blocks:
        pool_uses, test_uses = (
            [(rows, chosen) for rows, uses in side if (chosen := [u for u in uses if getattr(u, "block", -1) == block])]
            for side in (pool, tests)
        )
        if not test_uses:
            continue
        if block >= 0 and _pairs_cost_less(pool_uses, test_uses):
            for rows, uses in pool_uses:
                for columns, other_uses in test_uses:
                    result = sum(_pairs(use, other) for use in uses for other in other_uses if _matrices(use, other))
                    _add(products, rows, columns, result)
        else:
            # Within one block the other matrices of the stack do not matter.
            _add_whole_gradients(
                products,
                _as_single_matrices(pool_uses),
                _as_single_matrices(test_uses),
                shape[-2:] if block >= 0 else shape,
                memory,
            )


def _as_single_matrices(side: list[BatchUses]) -> list[BatchUses]:
    return [
        (rows, [MatrixUse(use.left, use.right) if isinstance(use, MatrixUse) else use for use in uses])
        for rows, uses in side
    ]


def _matrices(use: Use, other: Use) -> bool:
    return isinstance(use, MatrixUse) and isinstance(other, MatrixUse)


def _add(products: torch.Tensor, rows: list[int], columns: list[int], values: torch.Tensor | int) -> None:
    places = torch.tensor(rows, device=products.device).unsqueeze(1), torch.tensor(columns, device=products.device)
    products[places] += values


def _pairs_cost_less(pool: list[BatchUses], tests: list[BatchUses]) -> bool:
    matrices = [use for side in (pool, tests) for _, uses in side for use in uses if isinstance(use, MatrixUse)]
    if any(use.one_hot for use in matrices):
        # Whole gradients of a vocabulary are nearly all zero.
        return True
    height, width = matrices[0].left.size(2), matrices[0].right.size(2)
    tokens, rows = (
        [sum(count(use) for _, uses in side for use in uses if isinstance(use, MatrixUse)) for side in (pool, tests)]
        for count in (lambda use: use.left.shape[:2].numel(), lambda use: use.left.size(0))
    )
    pairs = tokens[0] * tokens[1] * (height + width)
    return pairs <= (sum(tokens) + rows[0] * rows[1]) * height * width


def _pairs(use: Use, other: Use) -> torch.Tensor:
    """Products by pairs of tokens: `[rows of use, rows of other]`."""
    assert isinstance(use, MatrixUse) and isinstance(other, MatrixUse)
    left, right = use.left.flatten(0, 1), other.left.flatten(0, 1)
    if use.one_hot and other.one_hot:
        of_left = (left.unsqueeze(1) == right).float()
    elif use.one_hot:
        of_left = right[:, left].T
    elif other.one_hot:
        of_left = left[:, right]
    else:
        of_left = left @ right.T
    pairs = of_left * (use.right.flatten(0, 1) @ other.right.flatten(0, 1).T)
    return pairs.view(*use.right.shape[:2], *other.right.shape[:2]).sum((1, 3))


def _add_whole_gradients(
    products: torch.Tensor, pool: list[BatchUses], tests: list[BatchUses], shape: torch.Size, memory: float
) -> None:
    at_once = max(1, int(memory / (8 * shape.numel())))
    rows: list[int] = []
    gradients: list[torch.Tensor] = []

    def multiply() -> None:
        left = torch.cat(gradients)
        for columns, uses in tests:
            for start in range(0, len(columns), at_once):
                right = whole_gradients([_slice(use, start, start + at_once) for use in uses], shape)
                _add(products, rows, columns[start : start + at_once], left @ right.T)

    for batch_rows, uses in pool:
        for start in range(0, len(batch_rows), at_once):
            part = batch_rows[start : start + at_once]
            if rows and len(rows) + len(part) > at_once:
                multiply()
                rows, gradients = [], []
            rows = [*rows, *part]
            gradients.append(whole_gradients([_slice(use, start, start + at_once) for use in uses], shape))
    if rows:
        multiply()


def _slice(use: Use, start: int, stop: int) -> Use:
    if isinstance(use, MatrixUse):
        return MatrixUse(use.left[start:stop], use.right[start:stop], use.block)
    return type(use)(use.values[start:stop])
