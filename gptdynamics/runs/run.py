"""The training loop of a run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from gptdynamics.base_model import BaseModel
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import Curriculum, draw_curriculum, linear_decay, run_seed
from gptdynamics.errors import DivergedRunError
from gptdynamics.measurement import TestSet, example_losses
from gptdynamics.measurement.loss import target_logits
from gptdynamics.tokens import TokenizedExample, make_target_batch


@dataclass
class RunTiming:
    """Seconds a run spent, and what a bare forward pass over the test set takes.

    Attributes:
        update: on optimiser updates.
        loss: on measuring loss and accuracy.
        generation: on sampling and scoring text.
        forward: of one forward pass over as many tokens as the test set has, without padding and without logits.
        evaluations: how often loss was measured.
    """

    update: float = 0.0
    loss: float = 0.0
    generation: float = 0.0
    forward: float = 0.0
    evaluations: int = 0

    @property
    def forward_passes(self) -> float:
        """Cost of one loss measurement in forward passes over the test set's non-padding tokens."""
        return self.loss / max(self.evaluations, 1) / self.forward if self.forward else float("nan")


@dataclass(frozen=True)
class Run:
    """What one run leaves behind.

    Attributes:
        index: of the run in its config.
        curriculum: `[steps][batch]` pool ids.
        learning_rate: `[steps]` the rate of each update.
        step: steps at which loss (and accuracy) were measured; 0 is before the first update.
        generation_step: steps at which text was generated; empty for label tasks.
        metrics: `[len(step) or len(generation_step), test examples]` float32 by metric.
        timing: where the time went.
    """

    index: int
    curriculum: Curriculum
    learning_rate: list[float]
    step: list[int]
    generation_step: list[int]
    metrics: dict[str, np.ndarray]
    timing: RunTiming = field(default_factory=RunTiming)


def _forward_seconds(model: torch.nn.Module, tokens: int, lengths: list[int]) -> float:
    """Time of one forward pass over `tokens` tokens without padding: the fastest of three, scaled."""
    length = max(1, int(np.mean(lengths)))
    rows = max(1, min(2048 // length, tokens // length))
    batch = torch.ones((rows, length), dtype=torch.long)
    best = float("inf")
    with torch.no_grad():
        for _ in range(3):
            began = time.perf_counter()
            model.base_model(input_ids=batch, use_cache=False)
            best = min(best, time.perf_counter() - began)
    return best * tokens / batch.numel()


def train_run(
    base: BaseModel,
    pool: dict[int, TokenizedExample],
    test_set: TestSet,
    settings: RunSettings,
    index: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Run:
    """Train a copy of `base` on run `index`'s curriculum and measure every test example on the way.

    The training loss is the mean of the batch's own mean losses; AdamW with linear decay (table 7).

    Args:
        base: the model every run starts from; it is not changed.
        pool: tokenised pool examples by id.
        test_set: what is measured.
        settings: of the config.
        index: of the run.
        on_step: called with the number of updates done, after each measurement.

    Raises:
        DivergedRunError: the loss of a batch or of a test example is not finite.
    """
    torch.manual_seed(int(np.random.SeedSequence(run_seed(settings, index)).generate_state(1)[0]))
    curriculum = draw_curriculum(settings, sorted(pool), index)
    rates = linear_decay(settings.learning_rate, len(curriculum))
    model = copy.deepcopy(base.model)
    trained = BaseModel(base.name, base.revision, model, base.tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )
    timing = RunTiming(forward=_forward_seconds(model, test_set.losses.tokens, test_set.losses.lengths))
    steps: list[int] = []
    generation_steps: list[int] = []
    measured: dict[str, list[np.ndarray]] = {}

    def measure(done: int) -> None:
        last = done == len(curriculum)
        values: dict[str, np.ndarray] = {}
        if done % settings.eval_every == 0 or last:
            began = time.perf_counter()
            values |= test_set.measure(trained)
            timing.loss += time.perf_counter() - began
            timing.evaluations += 1
            steps.append(done)
        if test_set.generator and (done % settings.generate_every == 0 or last):
            began = time.perf_counter()
            values |= test_set.generate(trained, [*run_seed(settings, index), done])
            timing.generation += time.perf_counter() - began
            generation_steps.append(done)
        for name, value in values.items():
            if not np.isfinite(value).all():
                bad = test_set.examples[int(np.argmin(np.isfinite(value)))].id
                raise DivergedRunError(f"{name} of test example {bad} is not finite after {done} updates")
            measured.setdefault(name, []).append(value)
        on_step(done)

    measure(0)
    for done, (ids, rate) in enumerate(zip(curriculum, rates, strict=True), start=1):
        began = time.perf_counter()
        batch = make_target_batch([pool[at] for at in ids], list(range(len(ids))))
        optimizer.param_groups[0]["lr"] = rate
        model.train()
        loss = example_losses(target_logits(model, batch), batch).mean()
        if not torch.isfinite(loss):
            raise DivergedRunError(f"training loss is not finite at update {done} (learning rate {rate:.3g})")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        timing.update += time.perf_counter() - began
        measure(done)
    return Run(
        index=index,
        curriculum=curriculum,
        learning_rate=rates,
        step=steps,
        generation_step=generation_steps,
        metrics={name: np.stack(values) for name, values in measured.items()},
        timing=timing,
    )
