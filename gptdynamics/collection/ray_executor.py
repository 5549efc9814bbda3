"""Does jobs on the nodes of a Ray cluster and brings their results back to this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from gptdynamics.collection.jobs import RunJob
from gptdynamics.collection.ray_cluster import Cluster, Request, connect
from gptdynamics.collection.ray_staff import POLL_SECONDS, RESUME_HINT, OnNote, Staff, Worker
from gptdynamics.collection.ray_worker import STEP, Ended
from gptdynamics.collection.shipment import Shipment
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.runs.processes import Executor, OnStep
from gptdynamics.settings.collect import RaySettings

TRIES = 4


class RayExecutor:
    """Does jobs on a cluster; a job whose worker is lost is started again on another.

    `on_step` is not called again for repeated steps; `patience` is as in `Staff`.
    """

    def __init__(
        self, cluster: Cluster, request: Request, workers: int, patience: float, on_step: OnStep, on_note: OnNote
    ) -> None:
        self.workers = workers
        self._ray = cluster.ray
        self._on_step, self._on_note = on_step, on_note
        # Callers may rely on one callback at a time.
        self._callback_lock = threading.Lock()
        self._shipments: dict[str, Any] = {}
        self._staff = Staff(cluster, request, workers, patience, on_note)
        self._threads = ThreadPoolExecutor(workers)

    def submit(self, job: RunJob) -> Future[Any]:
        """Hand a job to the next worker that is free."""
        config = job.settings.config
        if config not in self._shipments:
            # Unfinished jobs of the previous config hold their shipment themselves.
            self._shipments = {config: self._ray.put(Shipment.pack(job))}
        return self._threads.submit(self._do, job, self._shipments[config])

    def close(self) -> None:
        """End all workers; jobs in progress are dropped."""
        self._staff.close()
        self._threads.shutdown(cancel_futures=True)

    def _do(self, job: RunJob, shipment: Any) -> Any:
        label, reported_steps, losses = f"{job.settings.config}/{job.name}", 0, 0
        while True:
            worker, steps, started = self._staff.take(), 0, False
            try:
                for item in self._items(worker, job, shipment):
                    started = True
                    if isinstance(item, Ended):
                        if item.error is not None:
                            raise item.error
                        return item.result
                    steps += item == STEP
                    if steps > reported_steps:
                        reported_steps = steps
                        with self._callback_lock:
                            self._on_step(job.settings.config)
            except self._ray.exceptions.RayTaskError:
                raise
            except self._ray.exceptions.RayError as error:
                loss = self._staff.lose(worker, error)
                # A worker that was idle when its node was lost says nothing about the job.
                losses += started or not loss.with_node
                if losses == TRIES:
                    raise GPTDynamicsError(
                        f"{label} lost its worker {TRIES} times; the last time, {loss.reason}. {RESUME_HINT}"
                    ) from error
                with self._callback_lock:
                    self._on_note(f"{loss.reason}; {label} is started again")
            finally:
                self._staff.give_back(worker)

    def _items(self, worker: Worker, job: RunJob, shipment: Any) -> Iterator[Any]:
        """What a worker reports while it does a job; see `RayWorker.do`."""
        method = worker.actor.do.options(num_returns="streaming")
        coming = method.remote(job, job.settings.config, [shipment])
        while True:
            ready, _ = self._ray.wait([coming], timeout=POLL_SECONDS)
            self._staff.check()
            if ready:
                yield self._ray.get(next(coming))


@contextmanager
def ray_executor(
    settings: RaySettings, device: str, workers: int | None, jobs: int, on_step: OnStep, on_note: OnNote
) -> Iterator[Executor[RunJob]]:
    """An executor on a Ray cluster, with at most as many workers as it has room for.

    Args:
        settings, device, workers: as in `CollectSettings`.
        jobs: number of jobs, and the most workers.
        on_step: called with the config's name after each measured step.
        on_note: called with a line about a lost node or worker, or a long wait.

    Raises:
        SettingsError: Ray is not installed, there is no such cluster, or it has no GPU and `device` needs one.
    """
    with connect(settings) as cluster:
        gpus = settings.gpus
        if gpus is None:
            gpus = 1.0 if device != "cpu" and cluster.has_gpus() else 0.0
        if device == "cuda" and not cluster.has_gpus():
            raise SettingsError(f"device cuda: the Ray cluster has no GPU: {cluster.describe()}")
        request = Request(settings.cpus, gpus)
        count = min(workers or max(1, cluster.capacity(request)), max(1, jobs))
        executor = RayExecutor(cluster, request, count, settings.patience, on_step, on_note)
        try:
            yield executor
        finally:
            executor.close()
