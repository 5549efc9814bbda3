"""Kernels computed while a run trains: gradient products of all pool and test examples at a few of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gptdynamics.gradients import gradient_kernel
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs.run import KernelCheckpoint, RunKernel
from gptdynamics.settings.kernels import KernelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class KernelRecord:
    """Projected kernels of one run. N pool examples, M test examples.

    Args:
        model: the model that is trained.
        pool: the pool's examples, in id order.
        test: the test examples.
        updates: number of updates of the run.
        settings: how kernels are computed.
        steps: at which kernels are computed. Default: those of the settings.
        progress: called with the step, the number of examples passed through the model at it, and their total.

    Attributes:
        products: `[N, M]` float32 by step.
        columns: always empty, as nothing is recorded for single updates.
    """

    columns: ClassVar[dict[str, np.ndarray]] = {}

    def __init__(
        self,
        model: PreTrainedModel,
        pool: Sequence[TokenizedExample],
        test: Sequence[TokenizedExample],
        updates: int,
        settings: KernelSettings,
        steps: Sequence[int] | None = None,
        progress: Callable[[int, int, int], None] = lambda step, done, total: None,
    ) -> None:
        self.model = model
        self.pool, self.test = pool, test
        self.settings = settings
        self.steps = settings.steps(updates) if steps is None else list(steps)
        self.progress = progress
        self.products: dict[int, np.ndarray] = {}
        self._checkpoints: list[KernelCheckpoint] = []

    @property
    def kernel(self) -> RunKernel:
        """How the products were projected, and how exact they are."""
        return RunKernel(self.settings.columns, self.settings.seed, tuple(self._checkpoints))

    @property
    def checkpoints(self) -> list[KernelCheckpoint]:
        """The errors of the kernels computed so far."""
        return list(self._checkpoints)

    def restore(self, products: Mapping[int, np.ndarray], checkpoints: Sequence[KernelCheckpoint]) -> None:
        """Continue from kernels that were computed earlier in the same run."""
        self.products, self._checkpoints = dict(products), list(checkpoints)

    def take_products(self, step: int) -> None:
        """Compute the kernel, if it is due after `step` updates."""
        if step not in self.steps:
            return
        settings = self.settings
        kernel = gradient_kernel(
            self.model,
            self.pool,
            self.test,
            columns=settings.columns,
            seed=settings.seed,
            memory_limit=int(settings.memory * 2**30),
            progress=partial(self.progress, step),
        )
        self.products[step] = kernel.products
        self._checkpoints.append(KernelCheckpoint(step, kernel.cosine_error, kernel.covered, kernel.not_covered))
