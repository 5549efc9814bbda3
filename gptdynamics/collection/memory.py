"""Whether a collection's workers fit into the memory of this machine, found out before any work."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from gptdynamics.collection.settings import CollectSettings, missing_kernels, missing_runs
from gptdynamics.errors import SettingsError
from gptdynamics.estimates import ModelShape, TaskLengths, WorkerMemory, available_memory, base_shape, task_lengths
from gptdynamics.estimates import worker_memory as estimated_memory
from gptdynamics.estimates.memory import GIB, smallest_kernel_memory
from gptdynamics.plans import PlanEntry
from gptdynamics.tasks import get_task

# A GPU holds, for each process, what CUDA itself needs.
_CUDA = GIB / 2
_KERNEL_MEMORIES = (3.0, 2.0, 1.5, 1.0, 0.75, 0.5)


@dataclass(frozen=True)
class MemoryNeed:
    """What the workers of a config need on one device, and what is free there.

    Attributes:
        entry: of the plan.
        worker: what one worker needs.
        device: `cpu`, or a GPU that several workers may share.
        workers: on that device.
        with_products: how many of them take gradient products, at most.
        free: bytes there; None: not known.
    """

    entry: PlanEntry
    worker: WorkerMemory
    device: str
    workers: int
    with_products: int
    free: float | None

    @property
    def needed(self) -> float:
        """Bytes of all workers; of several processes, also of the one that hands out the work."""
        return self._needed_by(self.worker, self.workers)

    @property
    def fits(self) -> bool:
        """Whether they fit, as far as is known."""
        return self.free is None or self.needed <= self.free

    def __str__(self) -> str:
        free = "" if self.free is None else f" of {self.free / GIB:.1f} GiB that are free"
        where = "" if self.device == "cpu" else f" on {self.device}"
        return (
            f"{self.entry.config}: a worker needs about {self._of_one / GIB:.1f} GiB ({self.worker}), "
            f"{self.workers} of them{where} {self.needed / GIB:.1f} GiB{free}"
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
        """What would fit."""
        fitting = [count for count in range(1, self.workers) if self._fits(self.worker, count)]
        if fitting:
            return f"Give --workers {fitting[-1]}"
        entry = self.entry
        if entry.kernel_runs:
            shape, lengths = _known(entry)
            for memory in _KERNEL_MEMORIES:
                kernel = replace(entry.kernel, memory=memory)
                enough = memory >= smallest_kernel_memory(shape, entry.settings, kernel)
                less = estimated_memory(shape, entry.settings, lengths, kernel)
                if enough and memory < entry.kernel.memory and self._fits(less, 1):
                    return f"Give --workers 1 --kernel-memory {memory:g}"
            if self._fits(replace(self.worker, products=0.0), 1):
                return "Give --workers 1 --kernels 0"
        return "Take a smaller base model, or a machine with more memory"

    @property
    def _of_one(self) -> float:
        return self._needed_by(self.worker, 1)

    def _needed_by(self, worker: WorkerMemory, workers: int) -> float:
        if self.device != "cpu":
            return self._sum(worker, workers) + workers * _CUDA
        # The process that hands out the work opens the base model once, to tokenise.
        alone = worker.libraries + worker.weights / 2 if workers > 1 else 0.0
        return self._sum(worker, workers) + workers * worker.libraries + alone

    def _sum(self, worker: WorkerMemory, workers: int) -> float:
        taking = min(workers, self.with_products)
        return taking * worker.on_device + (workers - taking) * replace(worker, products=0.0).on_device

    def _fits(self, worker: WorkerMemory, workers: int) -> bool:
        return self.free is None or self._needed_by(worker, workers) <= self.free


def memory_needs(settings: CollectSettings) -> list[MemoryNeed]:
    """What is needed for each config that has something to make, on each device.

    Configs whose base model has a shape that is not known are left out; so are all on a Ray cluster, whose machines are
    not known.

    Raises:
        SettingsError: a GPU is asked for that is not there.
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
            # A base model that cannot be read is refused where it is loaded.
            shape, lengths = _known(entry)
            exact = sum(entry.settings.follows_gradients(run) for run in entry.run_names)
            kernel = entry.kernel if kernels[entry.config] else None
            worker = estimated_memory(shape, entry.settings, lengths, kernel, exact > 0)
            products = kernels[entry.config] + exact
            needs += [
                MemoryNeed(entry, worker, device, count, products, _free(device)) for device, count in workers.items()
            ]
    return needs


def check_memory(settings: CollectSettings) -> None:
    """Refuse a collection whose workers do not fit into the memory that is free.

    Raises:
        SettingsError: they do not; the message says what would fit.
    """
    for need in memory_needs(settings):
        if not need.fits:
            raise SettingsError(f"too little memory: {need}. {need.advice}")


def _known(entry: PlanEntry) -> tuple[ModelShape, dict[str, TaskLengths]]:
    settings = entry.settings
    return base_shape(settings.base), task_lengths(get_task(settings.task), settings.base)


def _free(device: str) -> float | None:
    if device == "cpu":
        return available_memory()
    import torch

    return float(torch.cuda.mem_get_info(device)[0])
