"""The workers of a collection on a Ray cluster: started, watched, and replaced when they are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from gptdynamics.collection.ray_cluster import Cluster, Request
from gptdynamics.collection.ray_worker import Place, RayWorker, installed_versions
from gptdynamics.errors import GPTDynamicsError, SettingsError

OnNote = Callable[[str], None]
POLL_SECONDS = 0.5
# Give up after this many workers in a row that end before they answer.
FAILED_STARTS = 4
# Ray itself ends this process when the head has not answered for 60 seconds.
HEAD_SECONDS = 20.0
WAIT_SECONDS = 30.0
RESUME_HINT = "Finished runs are saved: run the same command again to continue"


@dataclass(frozen=True, eq=False)
class Worker:
    """A worker that has answered: Ray's handle of a `RayWorker`, and its place."""

    actor: Any
    place: Place


@dataclass(frozen=True)
class Loss:
    """Why a worker was lost, in words, and whether its whole node was lost."""

    reason: str
    with_node: bool


class Staff:
    """The workers of a collection; those that the cluster has no room for start when it has.

    `patience` is the number of seconds to wait while no node has room for a worker.
    """

    def __init__(self, cluster: Cluster, request: Request, workers: int, patience: float, on_note: OnNote) -> None:
        self._cluster, self._ray = cluster, cluster.ray
        self._request, self._workers, self._patience = request, workers, patience
        self._on_note = on_note
        self._versions = installed_versions()
        self._hired: set[Worker] = set()
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._lost_nodes: dict[str, str] = {}
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._head_answered_at = self._last_hired_at = self._last_room_at = time.monotonic()
        self._wait_reported = False
        self._hiring = threading.Thread(target=self._hire, daemon=True)
        self._hiring.start()

    def take(self) -> Worker:
        """Wait for the next free worker.

        Raises:
            GPTDynamicsError: there will be none; the message says why.
        """
        while True:
            self.check()
            with suppress(Empty):
                return self._idle.get(timeout=POLL_SECONDS)

    def give_back(self, worker: Worker) -> None:
        """Mark a worker as free, unless it was lost."""
        if worker in self._hired:
            self._idle.put(worker)

    def lose(self, worker: Worker, error: Exception) -> Loss:
        """Replace a worker that does not answer; `error` is Ray's."""
        self._hired.discard(worker)
        self._end(worker.actor)
        place = worker.place
        loss_reason = self._cluster.why_lost(place.node)
        if loss_reason is not None:
            self._lost_nodes[place.node] = place.name
            return Loss(f"node {place.name} was lost ({loss_reason})", True)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Loss(f"a worker on node {place.name} ended ({lines[-1].strip()})", False)

    def check(self) -> None:
        """Raise an error if waiting any longer is useless."""
        if self._failure is not None:
            raise self._failure
        if self._closing.is_set():
            raise CancelledError

    def close(self) -> None:
        """End all workers."""
        self._closing.set()
        self._hiring.join()
        for worker in self._hired:
            self._end(worker.actor)

    def _end(self, actor: Any) -> None:
        with suppress(Exception):
            self._ray.kill(actor)

    def _hire(self) -> None:
        try:
            self._hire_until_closed()
        except Exception as error:
            self._failure = error

    def _hire_until_closed(self) -> None:
        hire = self._ray.remote(RayWorker).options(
            num_cpus=self._request.cpus, num_gpus=self._request.gpus, scheduling_strategy="SPREAD"
        )
        starting: dict[Any, Any] = {}
        failed = 0
        while not self._closing.is_set():
            while len(starting) + len(self._hired) < self._workers:
                actor = hire.remote("cuda:0" if self._request.gpus else "cpu")
                starting[actor.place.remote()] = actor
            ready: list[Any] = []
            if starting:
                ready, _ = self._ray.wait(list(starting), timeout=POLL_SECONDS)
            else:
                self._closing.wait(POLL_SECONDS)
            for answer in ready:
                actor = starting.pop(answer)
                try:
                    self._add(Worker(actor, self._ray.get(answer)))
                    failed = 0
                except self._ray.exceptions.RayError as error:
                    failed += 1
                    if failed == FAILED_STARTS:
                        raise GPTDynamicsError(
                            f"workers cannot start on the Ray cluster: {' '.join(str(error).split())}. "
                            "Every node needs this package: pip install 'gptdynamics[ray]'"
                        ) from error
            self._check_cluster()
        for actor in starting.values():
            self._end(actor)

    def _add(self, worker: Worker) -> None:
        place = worker.place
        differences = [
            f"{name} {place.versions.get(name)}, this machine {version}"
            for name, version in self._versions.items()
            if place.versions.get(name) != version
        ]
        if differences:
            raise SettingsError(
                f"node {place.name} has {'; '.join(differences)}: install the same versions on every node"
            )
        if self._request.gpus and not place.gpu:
            raise SettingsError(f"node {place.name}: Ray lists a GPU there, but torch finds none. Install CUDA there")
        self._hired.add(worker)
        self._idle.put(worker)

    def _check_cluster(self) -> None:
        """Raise an error if the head does not answer, or no node has had room for a worker for too long."""
        now = time.monotonic()
        if not self._cluster.answers():
            if now - self._head_answered_at > HEAD_SECONDS:
                raise GPTDynamicsError(
                    f"the head node of the Ray cluster ({self._cluster.address}) has stopped answering. {RESUME_HINT}"
                )
            return
        self._head_answered_at = now
        if self._hired:
            self._last_hired_at = self._last_room_at = now
        elif self._cluster.capacity(self._request):
            self._last_room_at = now
            if now - self._last_hired_at > WAIT_SECONDS and not self._wait_reported:
                self._wait_reported = True
                self._on_note(f"waiting for {self._request} on the Ray cluster: {self._cluster.describe()}")
        elif now - self._last_room_at > self._patience:
            lost = ", ".join(self._lost_nodes.values())
            raise GPTDynamicsError(
                f"no node of the Ray cluster has room for a worker ({self._request}): {self._cluster.describe()}"
                + (f"; lost: {lost}" if lost else "")
                + f". {RESUME_HINT}"
            )
