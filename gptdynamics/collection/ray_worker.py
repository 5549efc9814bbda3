"""The worker that runs on the nodes of a Ray cluster."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from gptdynamics.runs.bench import Bench
from gptdynamics.runs.processes import Job

STARTED, STEP = "started", "step"


def installed_versions() -> dict[str, str]:
    """Versions of this package and of the libraries that affect the results of a run."""
    import json

    from gptdynamics import __version__
    from gptdynamics.dataset.tables import library_versions

    return {"gptdynamics": __version__, **json.loads(library_versions())}


@dataclass(frozen=True)
class Place:
    """The place of a worker: Ray's id of its node, the node's name for messages, and what is installed there."""

    node: str
    name: str
    versions: dict[str, str]
    gpu: bool


@dataclass(frozen=True)
class Ended:
    """The end of a job: its result, or an exception."""

    result: Any = None
    error: Exception | None = None


class RayWorker:
    """Does jobs in a process on a node, one after the other, with one thread; it keeps the bench of the last job."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._bench: tuple[str, Bench] | None = None

    def place(self) -> Place:
        """The place of this worker."""
        import ray
        import torch

        name = f"{platform.node()} ({ray.util.get_node_ip_address()})"
        gpu = torch.cuda.is_available()
        return Place(ray.get_runtime_context().get_node_id(), name, installed_versions(), gpu)

    def do(self, job: Job, key: str, shipment: list[Any]) -> Iterator[Any]:
        """Do a job; yields `STARTED`, a `STEP` after each measured step, and `Ended`.

        `key` names the bench that it needs. `shipment` is a list with a reference to the bench's contents, which is
        fetched only if it is needed.
        """
        reports: SimpleQueue[Any] = SimpleQueue()

        def work() -> None:
            import torch

            # The setting is per thread, and results may depend on it.
            torch.set_num_threads(1)
            try:
                reports.put(Ended(job.do(self._get_bench(key, shipment), lambda config: reports.put(STEP))))
            except Exception as error:
                reports.put(Ended(error=error))

        threading.Thread(target=work, daemon=True).start()
        yield STARTED
        while not isinstance(item := reports.get(), Ended):
            yield item
        yield item

    def _get_bench(self, key: str, shipment: list[Any]) -> Bench:
        import ray

        if self._bench is None or self._bench[0] != key:
            self._bench = None
            self._bench = (key, ray.get(shipment[0]).unpack(self._device))
        return self._bench[1]
