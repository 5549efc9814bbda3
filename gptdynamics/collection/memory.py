"""Checks before a collection whether its workers fit in the memory of this machine."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from gptdynamics.collection.settings import CollectSettings, missing_kernels, missing_runs
from gptdynamics.errors import SettingsError
from gptdynamics.estimates import ModelShape, TaskLengths, WorkerMemory, available_memory, base_shape, task_lengths
from gptdynamics.estimates import worker_memory as estimated_memory
from gptdynamics.estimates.memory import GIB, SHARED, smallest_kernel_memory
from gptdynamics.plans import PlanEntry
from gptdynamics.tasks import get_task

# Memory on a GPU that CUDA itself needs for each process.
_CUDA = GIB / 2
_KERNEL_MEMORIES = (3.0, 2.0, 1.5, 1.0, 0.75, 0.5)


@dataclass(frozen=True)
class MemoryNeed:
    """The memory that the workers of a config need on one device, and the free memory there.

    Attributes:
        entry: of the plan.
        worker: memory that one worker needs.
        device: `cpu`, or a GPU that several workers may share.
        workers: number of workers on that device.
        with_products: the most workers that compute gradient products at one time.
        free: free bytes; None if unknown.
    """

    entry: PlanEntry
    worker: WorkerMemory
    device: str
    workers: int
    with_products: int
    free: float | None

    @property
    def needed(self) -> float:
        """Bytes of all workers and, if there are several, of the process that gives them jobs."""
        return self._needed_by(self.worker, self.workers)

    @property
    def fits(self) -> bool:
        """Whether they fit; true if the free memory is unknown."""
        return self.free is None or self.needed <= self.free

    def __str__(self) -> str:
        free = "" if self.free is None else f" of {self.free / GIB:.1f} GiB that are free"
        place = "" if self.device == "cpu" else f" on {self.device}"
        return (
            f"{self.entry.config}: a worker needs about {self._needed_by_one / GIB:.1f} GiB ({self.worker}), "
            f"{self.workers} of them{place} {self.needed / GIB:.1f} GiB{free}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in bytes."""
        return {
            "worker": asdict(self.worker) | {"total": self.worker.total},
            "device": self.device,
            "workers": self.workers,
            "needed": self.needed,
            "free": self.free,
        }

    @property
    def advice(self) -> str:
        """Options that would fit."""
        fitting = [count for count in range(1, self.workers) if self._fits(self.worker, count)]
        if fitting:
            return f"Give --workers {fitting[-1]}"
        entry = self.entry
        if entry.kernel_runs:
            shape, lengths = _shape_and_lengths(entry)
            for memory in _KERNEL_MEMORIES:
                kernel = replace(entry.kernel, memory=memory)
                large_enough = memory >= smallest_kernel_memory(shape, entry.settings, kernel)
                smaller_need = estimated_memory(shape, entry.settings, lengths, kernel, on_gpu=self.device != "cpu")
                if large_enough and memory < entry.kernel.memory and self._fits(smaller_need, 1):
                    return f"Give --workers 1 --kernel-memory {memory:g}"
            if self._fits(replace(self.worker, products=0.0), 1):
                return "Give --workers 1 --kernels 0"
        return "Use a smaller base model, or a machine with more memory"

    @property
    def _needed_by_one(self) -> float:
        return self._needed_by(self.worker, 1)

    def _needed_by(self, worker: WorkerMemory, workers: int) -> float:
        if self.device != "cpu":
            return self._sum(worker, workers) + workers * _CUDA
        own_libraries = worker.libraries - SHARED
        # The process that gives workers their jobs loads the base model once, to tokenise.
        coordinator = own_libraries + worker.weights / 2 if workers > 1 else 0.0
        return SHARED + self._sum(worker, workers) + workers * own_libraries + coordinator

    def _sum(self, worker: WorkerMemory, workers: int) -> float:
        with_products = min(workers, self.with_products)
        return with_products * worker.on_device + (workers - with_products) * replace(worker, products=0.0).on_device

    def _fits(self, worker: WorkerMemory, workers: int) -> bool:
        return self.free is None or self._needed_by(worker, workers) <= self.free


def memory_needs(settings: CollectSettings) -> list[MemoryNeed]:
    """The memory needed for each config with missing runs or kernels, on each device.

    Configs whose base model has an unknown shape are left out; so are all configs on a Ray cluster, as its machines are
    unknown.

    Raises:
        SettingsError: this machine does not have the GPU of the settings.
    """
    needs: list[MemoryNeed] = []
    counts = {entry.config: len(missing_runs(settings.out, entry)) for entry in settings.plan}
    kernels = {entry.config: len(missing_kernels(settings.out, entry)) for entry in settings.plan}
    if settings.ray is not None or not any([*counts.values(), *kernels.values()]):
        return needs
    workers = Counter(settings.devices()[: max(1, sum(counts.values()))])
    for entry in settings.plan:
        if not counts[entry.config] and not kernels[entry.config]:
            continue
        with suppress(SettingsError):
            # A base model that cannot be read raises a better error when it is loaded.
            shape, lengths = _shape_and_lengths(entry)
            exact = sum(entry.settings.follows_gradients(run) for run in entry.run_names)
            kernel = entry.kernel if kernels[entry.config] else None
            products = kernels[entry.config] + exact
            for device, count in workers.items():
                worker = estimated_memory(shape, entry.settings, lengths, kernel, exact > 0, device != "cpu")
                needs.append(MemoryNeed(entry, worker, device, count, products, _free(device)))
    return needs


def check_memory(settings: CollectSettings) -> None:
    """Check that a collection's workers fit in the free memory.

    Raises:
        SettingsError: they do not; the message says what would fit.
    """
    for need in memory_needs(settings):
        if not need.fits:
            raise SettingsError(f"too little memory: {need}. {need.advice}")


def _shape_and_lengths(entry: PlanEntry) -> tuple[ModelShape, dict[str, TaskLengths]]:
    settings = entry.settings
    return base_shape(settings.base), task_lengths(get_task(settings.task), settings.base)


def _free(device: str) -> float | None:
    if device == "cpu":
        return available_memory()
    import torch

    return float(torch.cuda.mem_get_info(device)[0])
