"""Measuring in the middle of somebody's training without changing anything of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode within; afterwards every module's mode and all states of random numbers are as they were.

    Those are torch's (of the CPU and of every GPU), numpy's and Python's. Mixed precision that accelerate wraps the
    model's forward in (a Trainer's `bf16` or `fp16`) is of the training, and is left off.

    Args:
        model: what is measured. Its gradients are not touched by measuring, which makes none.
    """
    modes = [(module, module.training) for module in model.modules()]
    mixed, own = (model.__dict__.get(name) for name in ("forward", "_original_forward"))
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            model.eval()
            if mixed is not None and own is not None:
                model.forward = own
            yield
        finally:
            if mixed is not None:
                model.forward = mixed
            for module, mode in modes:
                module.training = mode
            random.setstate(python)
            np.random.set_state(numpy)
