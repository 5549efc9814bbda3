"""The jobs of a collection, done on a bench: a run of a config, or the projected gradients of its base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdynamics.configs import RunSettings
from gptdynamics.runs.bench import Bench, BenchContents
from gptdynamics.runs.processes import OnStep
from gptdynamics.settings.kernels import KernelSettings

VECTORS = "base"


@dataclass(frozen=True)
class RunJob:
    """A run to make, or the projected gradients of the base model.

    Attributes:
        settings: of the config.
        data: folder with local rows, or None.
        unseen: whether runs of the config train on the pool rows of `test_unseen`.
        name: of the run, or `VECTORS`.
        kernels: settings of the run's kernel, if it is to be computed.
    """

    settings: RunSettings
    data: Path | None
    unseen: bool
    name: str
    kernels: KernelSettings | None = None

    @property
    def claim(self) -> str:
        """The name of the job's claim."""
        return f"{self.settings.config}.{self.name}"

    @property
    def bench_key(self) -> Any:
        """Identifies the bench of the job's config: equal keys, equal contents."""
        return self.settings, self.data, self.unseen

    def load_contents(self) -> BenchContents:
        """Load the contents of the bench of the job's config."""
        return BenchContents.load(self.settings, self.data, self.unseen)

    def open_bench(self, device: str) -> Bench:
        """Open the bench of the job's config."""
        return Bench(self.load_contents(), device)

    def do(self, bench: Bench, on_step: OnStep) -> Any:
        """Make the `Run`, or pool and test vectors. `on_step` is called with the config's name."""
        if self.name == VECTORS:
            return bench.vectors()
        return bench.run(self.name, lambda step: on_step(self.settings.config), kernels=self.kernels)
