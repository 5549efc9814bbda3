"""How kernels are taken along a run."""

from __future__ import annotations

from dataclasses import dataclass

from gptdynamics.ranges import COUNT, SEED, Range, check_fields


def spaced_steps(updates: int, count: int) -> list[int]:
    """At most `count` steps of a run, evenly spaced: 0 is the first, and the last is before the end."""
    return sorted({round(index * updates / count) for index in range(count)})


@dataclass(frozen=True)
class KernelSettings:
    """How the gradient products of all pool and test examples, a kernel, are taken along a run.

    Attributes:
        checkpoints: steps of a run at which its kernel is taken: before the first update, then evenly spread.
        columns: columns of the random matrices that gradients are projected by; more make the error smaller.
        seed: seed of these matrices.
        memory: GiB that projected gradients may take beside the model.
    """

    checkpoints: int = 6
    columns: int = 96
    seed: int = 0
    memory: float = 4.0

    def __post_init__(self) -> None:
        check_fields(self, {"checkpoints": COUNT, "columns": COUNT, "seed": SEED, "memory": Range(above=True)})

    def steps(self, updates: int) -> list[int]:
        """The steps, in a run of so many updates, at which its kernel is taken."""
        return spaced_steps(updates, self.checkpoints)
