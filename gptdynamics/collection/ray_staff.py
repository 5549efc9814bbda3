"""The workers that a collection has on a Ray cluster: hired, watched, replaced when they are lost."""

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
# Workers that end one after the other before they have said where they are.
FAILED_STARTS = 4
# Ray itself ends the process when the head has been gone for 60 seconds.
HEAD_SECONDS = 20.0
WAIT_SECONDS = 30.0
KEPT = "Finished runs are kept: run the same command again to go on"


@dataclass(frozen=True, eq=False)
class Worker:
    """A worker that has answered: Ray's handle of a `RayWorker`, and where it is."""

    actor: Any
    place: Place


@dataclass(frozen=True)
class Loss:
    """What became of a worker, in words, and whether its whole node is gone."""

    told: str
    with_node: bool


class Staff:
    """As many workers as wanted; those that there is no room for begin when there is.

    `patience` is how many seconds may pass without a node that could take a worker.
    """

    def __init__(self, cluster: Cluster, request: Request, wanted: int, patience: float, on_note: OnNote) -> None:
        self._cluster, self._ray = cluster, cluster.ray
        self._request, self._wanted, self._patience = request, wanted, patience
        self._on_note = on_note
        self._versions = installed_versions()
        self._there: set[Worker] = set()
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._lost_nodes: dict[str, str] = {}
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._head_seen = self._staffed = self._able = time.monotonic()
        self._waiting_told = False
        self._hiring = threading.Thread(target=self._hire, daemon=True)
        self._hiring.start()

    def take(self) -> Worker:
        """The next worker that is free; waits for it.

        Raises:
            GPTDynamicsError: there will be none; says why.
        """
        while True:
            self.check()
            with suppress(Empty):
                return self._idle.get(timeout=POLL_SECONDS)

    def give_back(self, worker: Worker) -> None:
        """A worker is free again, unless it was lost."""
        if worker in self._there:
            self._idle.put(worker)

    def lose(self, worker: Worker, error: Exception) -> Loss:
        """Replace a worker that does not answer; `error` is what Ray said."""
        self._there.discard(worker)
        self._end(worker.actor)
        place = worker.place
        why = self._cluster.why_lost(place.node)
        if why is not None:
            self._lost_nodes[place.node] = place.name
            return Loss(f"node {place.name} was lost ({why})", True)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Loss(f"a worker on node {place.name} ended ({lines[-1].strip()})", False)

    def check(self) -> None:
        """Raise what makes it useless to wait any longer."""
        if self._failure is not None:
            raise self._failure
        if self._closing.is_set():
            raise CancelledError

    def close(self) -> None:
        """End all workers."""
        self._closing.set()
        self._hiring.join()
        for worker in self._there:
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
        coming: dict[Any, Any] = {}
        failed = 0
        while not self._closing.is_set():
            while len(coming) + len(self._there) < self._wanted:
                actor = hire.remote("cuda:0" if self._request.gpus else "cpu")
                coming[actor.place.remote()] = actor
            ready: list[Any] = []
            if coming:
                ready, _ = self._ray.wait(list(coming), timeout=POLL_SECONDS)
            else:
                self._closing.wait(POLL_SECONDS)
            for answer in ready:
                actor = coming.pop(answer)
                try:
                    self._welcome(Worker(actor, self._ray.get(answer)))
                    failed = 0
                except self._ray.exceptions.RayError as error:
                    failed += 1
                    if failed == FAILED_STARTS:
                        raise GPTDynamicsError(
                            f"workers cannot begin on the Ray cluster: {' '.join(str(error).split())}. "
                            "Every node needs this package: pip install 'gptdynamics[ray]'"
                        ) from error
            self._look()
        for actor in coming.values():
            self._end(actor)

    def _welcome(self, worker: Worker) -> None:
        place = worker.place
        differ = [
            f"{name} {place.versions.get(name)} there, {mine} here"
            for name, mine in self._versions.items()
            if place.versions.get(name) != mine
        ]
        if differ:
            raise SettingsError(f"node {place.name} has {'; '.join(differ)}: install the same versions on every node")
        if self._request.gpus and not place.gpu:
            raise SettingsError(f"node {place.name}: Ray has a GPU there, but torch sees none")
        self._there.add(worker)
        self._idle.put(worker)

    def _look(self) -> None:
        """Give up when the head is gone, or for too long no node could take a worker."""
        now = time.monotonic()
        if not self._cluster.answers():
            if now - self._head_seen > HEAD_SECONDS:
                raise GPTDynamicsError(
                    f"the head node of the Ray cluster ({self._cluster.address}) does not answer any more. {KEPT}"
                )
            return
        self._head_seen = now
        if self._there:
            self._staffed = self._able = now
        elif self._cluster.capacity(self._request):
            self._able = now
            if now - self._staffed > WAIT_SECONDS and not self._waiting_told:
                self._waiting_told = True
                self._on_note(f"waiting for {self._request} on the Ray cluster: {self._cluster.describe()}")
        elif now - self._able > self._patience:
            lost = ", ".join(self._lost_nodes.values())
            raise GPTDynamicsError(
                f"no node of the Ray cluster can take a worker ({self._request}): {self._cluster.describe()}"
                + (f"; lost: {lost}" if lost else "")
                + f". {KEPT}"
            )
