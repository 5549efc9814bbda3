"""The training loop of a run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import Curriculum, draw_curriculum, linear_decay, run_seed
from gptdynamics.measurement import TestSet
from gptdynamics.measurement.logits import pass_forward
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs.gradient_record import GradientRecord
from gptdynamics.runs.kernel_record import KernelRecord
from gptdynamics.runs.measurements import Measurements
from gptdynamics.runs.run import Run, RunTiming
from gptdynamics.runs.updates import Updates
from gptdynamics.settings.kernels import KernelSettings


def _forward_seconds(model: torch.nn.Module, tokens: int, lengths: list[int]) -> float:
    """Seconds of one forward pass over `tokens` tokens without padding, scaled from the fastest of three passes."""
    length = max(1, int(np.mean(lengths)))
    rows = max(1, min(2048 // length, tokens // length))
    batch = torch.ones((rows, length), dtype=torch.long, device=next(model.parameters()).device)
    best = float("inf")
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            pass_forward(model, batch)
            best = min(best, time.perf_counter() - start)
    return best * tokens / batch.numel()


def train_run(
    base: BaseModel,
    pool: dict[int, TokenizedExample],
    test_set: TestSet,
    settings: RunSettings,
    run: str,
    on_step: Callable[[int], None] = lambda step: None,
    curriculum: Curriculum | None = None,
    kernels: KernelSettings | None = None,
) -> Run:
    """Train a copy of `base` on a run's curriculum and measure every test example at its steps.

    The training loss is the mean over the batch of each example's mean loss; AdamW with linear decay (tables 5 and 7).

    Args:
        base: the model every run starts from; it is not changed.
        pool: tokenised pool examples by id.
        test_set: what is measured.
        settings: of the config.
        run: name of the run.
        on_step: called with the number of updates so far, after each measurement.
        curriculum: `[steps][batch]` pool ids to train on. Default: drawn with the run's seed.
        kernels: settings of the run's kernel, if it is to be computed; runs that record exact products have none.

    Raises:
        DivergedRunError: the loss of a batch or of a test example is not finite.
    """
    settings = settings.for_run(run)
    updates = Updates(base.model, settings, run_seed(settings, run))
    model, mixed = updates.model, updates.mixed
    curriculum = draw_curriculum(settings, run) if curriculum is None else curriculum
    rates = linear_decay(settings.learning_rate, len(curriculum))
    with mixed:
        timing = RunTiming(forward=_forward_seconds(model, test_set.losses.tokens, test_set.losses.lengths))
    exact: GradientRecord | None = None
    record: GradientRecord | KernelRecord | None = None
    examples = [pool[pool_id] for pool_id in settings.pool_ids] if settings.follows_gradients(run) or kernels else []
    if settings.follows_gradients(run):
        record = exact = GradientRecord(model, examples, test_set, len(curriculum))
    elif kernels:
        record = KernelRecord(model, examples, test_set.tokenized, len(curriculum), kernels)
    measurements = Measurements(test_set, settings, run, model.device, timing)
    for step in updates.iterate(pool, curriculum, rates, timing, exact):
        measurements.take(model, step, last=step == len(curriculum))
        if record:
            with timing.timed("products"):
                record.take_products(step)
        on_step(step)
    return measurements.as_run(curriculum, rates, record)
