"""A model in evaluation mode for a while, whatever mode each of its modules is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """A context in which the model is in evaluation mode; at the end, each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
