"""The precision that a run's passes are made in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class TensorFloat32(AbstractContextManager[None]):
    """Within, matrix products on a GPU are taken with the mantissa of TF32; it may be entered again and again."""

    def __init__(self) -> None:
        self._before: list[str] = []

    def __enter__(self) -> None:
        self._before.append(torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("high")

    def __exit__(self, *error: object) -> None:
        torch.set_float32_matmul_precision(self._before.pop())


def forward_precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of forward passes in a precision, `fp32`, `tf32` or `bf16`; TF32 is only of GPUs."""
    if precision == "tf32":
        return backward_precision(precision, device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def backward_precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of backward passes: those of `bf16` take the types that the forward pass chose."""
    return TensorFloat32() if precision == "tf32" and device.type == "cuda" else nullcontext()
