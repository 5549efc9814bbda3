"""The training loop of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gptdynamics.base_model import BaseModel
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum, linear_decay, run_seed
from gptdynamics.errors import DivergedRunError
from gptdynamics.measurement import TestSet
from gptdynamics.runs.gradient_record import GradientRecord
from gptdynamics.runs.run import Run, RunTiming
from gptdynamics.runs.updates import Updates
from gptdynamics.tokens import TokenizedExample


@contextmanager
def _timed(timing: RunTiming, part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    setattr(timing, part, getattr(timing, part) + time.perf_counter() - began)


def _forward_seconds(model: torch.nn.Module, tokens: int, lengths: list[int]) -> float:
    """Time of one forward pass over `tokens` tokens without padding: the fastest of three, scaled."""
    length = max(1, int(np.mean(lengths)))
    rows = max(1, min(2048 // length, tokens // length))
    batch = torch.ones((rows, length), dtype=torch.long, device=next(model.parameters()).device)
    best = float("inf")
    with torch.no_grad():
        for _ in range(3):
            began = time.perf_counter()
            model.base_model(input_ids=batch, use_cache=False).last_hidden_state.sum().item()
            best = min(best, time.perf_counter() - began)
    return best * tokens / batch.numel()


def train_run(
    base: BaseModel,
    pool: dict[int, TokenizedExample],
    test_set: TestSet,
    settings: RunSettings,
    run: str,
    on_step: Callable[[int], None] = lambda step: None,
) -> Run:
    """Train a copy of `base` on a run's curriculum and measure every test example on the way.

    The training loss is the mean of the batch's own mean losses; AdamW with linear decay (tables 5 and 7).

    Args:
        base: the model every run starts from; it is not changed.
        pool: tokenised pool examples by id.
        test_set: what is measured.
        settings: of the config.
        run: name of the run.
        on_step: called with the number of updates done, after each measurement.

    Raises:
        DivergedRunError: the loss of a batch or of a test example is not finite.
    """
    updates = Updates(base.model, settings, run_seed(settings, run))
    model, mixed = updates.model, updates.mixed
    curriculum = draw_curriculum(settings, run)
    rates = linear_decay(settings.learning_rate, len(curriculum))
    with mixed:
        timing = RunTiming(forward=_forward_seconds(model, test_set.losses.tokens, test_set.losses.lengths))
    record: GradientRecord | None = None
    if settings.follows_gradients(run):
        examples = [pool[at] for at in settings.pool_ids]
        record = GradientRecord(model, examples, test_set, len(curriculum))
    steps: list[int] = []
    generation_steps: list[int] = []
    measured: dict[str, list[np.ndarray]] = {}

    def measure(done: int) -> None:
        last = done == len(curriculum)
        values: dict[str, np.ndarray] = {}
        if done % settings.eval_every == 0 or last:
            with _timed(timing, "loss"), mixed:
                values |= test_set.measure(model)
            timing.evaluations += 1
            steps.append(done)
        if test_set.generator and (done % settings.generate_every == 0 or last):
            with _timed(timing, "generation"), mixed:
                values |= test_set.generate(model, [*run_seed(settings, run), done])
            generation_steps.append(done)
        for name, value in values.items():
            sound = np.isfinite(value) | ~test_set.followed[name]
            if not sound.all():
                bad = test_set.examples[int(np.argmin(sound))].id
                raise DivergedRunError(f"{name} of test example {bad} is not finite after {done} updates")
            measured.setdefault(name, []).append(value)
        if record:
            with _timed(timing, "products"):
                record.take_products(done)
        on_step(done)

    measure(0)
    for done, (ids, rate) in enumerate(zip(curriculum, rates, strict=True), start=1):
        with _timed(timing, "update"):
            loss = updates.loss([pool[at] for at in ids])
            if not torch.isfinite(loss):
                raise DivergedRunError(f"training loss is not finite at update {done} (learning rate {rate:.3g})")
            loss.backward()
        if record:
            with _timed(timing, "gradients"):
                record.before_update()
        with _timed(timing, "update"):
            updates.step(rate)
        if record:
            with _timed(timing, "gradients"):
                record.after_update()
        measure(done)
    return Run(
        name=run,
        curriculum=curriculum,
        learning_rate=rates,
        step=steps,
        generation_step=generation_steps,
        metrics={name: np.stack(values) for name, values in measured.items()},
        gradients=record.columns if record else {},
        products=record.products if record else {},
        timing=timing,
    )
