"""Measuring during a user's training without changing it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gptdynamics.models.evaluating import evaluating


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """A context with the model in evaluation mode; at the end, all modes and random number generators are restored.

    The generators are torch's (of the CPU and of every GPU), numpy's and Python's. The mixed precision in which
    accelerate wraps the model's forward (a Trainer's `bf16` or `fp16`) is switched off within the context.

    Args:
        model: the model that is measured. Measuring does not change its gradients.
    """
    forward, original_forward = (model.__dict__.get(name) for name in ("forward", "_original_forward"))
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)), evaluating(model):
        try:
            if forward is not None and original_forward is not None:
                model.forward = original_forward
            yield
        finally:
            if forward is not None:
                model.forward = forward
            random.setstate(python_state)
            np.random.set_state(numpy_state)
