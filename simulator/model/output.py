"""What a simulator's forward pass returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class GPTfluenceOutput(ModelOutput):
    """What `GPTfluenceSimulator.forward` returns.

    Attributes:
        loss: mean squared error against `labels`; None without labels.
        trajectories: `[runs, M, steps + 1]`, in the metric's units.
    """

    loss: torch.Tensor | None = None
    trajectories: torch.Tensor | None = None
