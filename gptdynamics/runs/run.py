"""The results of one run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gptdynamics.curriculum import Curriculum


@dataclass
class RunTiming:
    """Seconds spent on the parts of a run, and the time of a plain forward pass over the test set.

    Attributes:
        update: on optimiser updates.
        loss: on measuring loss and accuracy.
        generation: on sampling and scoring text.
        gradients: on gradient products of each update.
        products: on pool x test gradient products.
        forward: on one forward pass over as many tokens as the test set has, without padding and without logits.
        evaluations: number of loss measurements.
        sampled, tied: number of sampled tokens, and of those that rounding errors could have changed.
    """

    update: float = 0.0
    loss: float = 0.0
    generation: float = 0.0
    gradients: float = 0.0
    products: float = 0.0
    forward: float = 0.0
    evaluations: int = 0
    sampled: int = 0
    tied: int = 0

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent within to one of the parts."""
        start = time.perf_counter()
        yield
        setattr(self, part, getattr(self, part) + time.perf_counter() - start)

    @property
    def seconds(self) -> float:
        """Total time, without the setup before the first step."""
        return self.update + self.loss + self.generation + self.gradients + self.products

    @property
    def forward_passes(self) -> float:
        """Cost of one loss measurement in forward passes over the test set's non-padding tokens."""
        return self.loss / max(self.evaluations, 1) / self.forward if self.forward else float("nan")


@dataclass(frozen=True)
class KernelCheckpoint:
    """How exact the projected gradient products at one step of a run are.

    Attributes:
        step: number of updates before it.
        error: root mean square error of a product, relative to the product of the two gradients' norms; estimated with
            a second seed on a sample of pairs.
        covered: share of the squared gradient norm that the products include.
        not_covered: names of trainable parameters that the products leave out.
    """

    step: int
    error: float
    covered: float
    not_covered: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> KernelCheckpoint:
        """From the result of `dataclasses.asdict`, also after a round trip through JSON."""
        return cls(**(dict(values) | {"not_covered": tuple(values["not_covered"])}))


@dataclass(frozen=True)
class RunKernel:
    """How the gradient products of a run were projected.

    Attributes:
        columns: of the random matrices.
        seed: of the random matrices.
        checkpoints: errors of the products, in the order of their steps.
    """

    columns: int
    seed: int
    checkpoints: tuple[KernelCheckpoint, ...]


@dataclass(frozen=True)
class Run:
    """The results of one run. T updates, M test examples, N pool examples.

    Attributes:
        name: of the run in its config.
        curriculum: `[T][batch]` pool ids.
        learning_rate: `[T]` the rate of each update.
        step: steps at which loss (and accuracy) were measured; 0 is before the first update.
        generation_step: steps at which text was generated; empty for label tasks.
        metrics: `[M, len(step) or len(generation_step)]` float32 by metric; NaN where an example does not have the
            metric.
        gradients: `grad_dot`, `update_dot`: `[M, T]` float32, for each update; empty if not recorded.
        products: `[N, M]` float32 inner products of the gradients of pool and test examples, by step; empty if not
            recorded.
        kernel: how `products` were projected; None: they are exact, or there are none.
        timing: seconds spent on the parts of the run.
    """

    name: str
    curriculum: Curriculum
    learning_rate: list[float]
    step: list[int]
    generation_step: list[int]
    metrics: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    products: dict[int, np.ndarray] = field(default_factory=dict)
    kernel: RunKernel | None = None
    timing: RunTiming = field(default_factory=RunTiming)
