"""The precision of a run's forward and backward passes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class TensorFloat32(AbstractContextManager[None]):
    """A context in which matrix products on a GPU use TF32; it may be entered repeatedly."""

    def __init__(self) -> None:
        self._before: list[str] = []

    def __enter__(self) -> None:
        self._before.append(torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("high")

    def __exit__(self, *error: object) -> None:
        torch.set_float32_matmul_precision(self._before.pop())


def forward_precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A context for forward passes in `fp32`, `tf32` or `bf16`; TF32 has an effect on GPUs only."""
    if precision == "tf32":
        return backward_precision(precision, device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def backward_precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A context for backward passes; with `bf16` these use the dtypes of the forward pass, without a context."""
    return TensorFloat32() if precision == "tf32" and device.type == "cuda" else nullcontext()
