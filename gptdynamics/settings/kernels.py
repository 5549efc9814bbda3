"""Settings of the kernels of a run."""

from __future__ import annotations

from dataclasses import dataclass

from gptdynamics.ranges import COUNT, SEED, Range, check_fields


def spaced_steps(updates: int, count: int) -> list[int]:
    """At most `count` steps of a run, evenly spaced: 0 is the first, and the last is before the end."""
    return sorted({round(index * updates / count) for index in range(count)})


@dataclass(frozen=True)
class KernelSettings:
    """How kernels, the gradient products of all pool and test examples, are computed along a run.

    Attributes:
        checkpoints: number of steps at which a run's kernel is computed: before the first update, then evenly spaced.
        columns: columns of the random matrices that project gradients; more columns make the error smaller.
        seed: seed of these matrices.
        memory: GiB for projected gradients, in addition to the model.
    """

    checkpoints: int = 6
    columns: int = 96
    seed: int = 0
    memory: float = 4.0

    def __post_init__(self) -> None:
        check_fields(self, {"checkpoints": COUNT, "columns": COUNT, "seed": SEED, "memory": Range(above=True)})

    def steps(self, updates: int) -> list[int]:
        """The steps at which the kernel of a run with this number of updates is computed."""
        return spaced_steps(updates, self.checkpoints)
