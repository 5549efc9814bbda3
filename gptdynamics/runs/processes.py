"""Where trainings run: in this process, or in processes of this machine with one thread each."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from gptdynamics.errors import GPTDynamicsError
from gptdynamics.runs.bench import Bench
from gptdynamics.runs.threads import torch_threads
from gptdynamics.runs.worker_pool import WorkerPool, worker_pool

OnStep = Callable[[str], None]


class Job(Protocol):
    """Work on a bench; it is sent to a process, and its result is sent back."""

    @property
    def bench_key(self) -> Any:
        """Equal for jobs that can be done on the same bench."""
        ...

    def open_bench(self, device: str) -> Bench:
        """Open the bench that the job needs."""
        ...

    def do(self, bench: Bench, on_step: OnStep) -> Any:
        """Do the job on a bench with this job's key; `on_step` is called after each measured step."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job, contravariant=True)


class Executor(Protocol[AnyJob]):
    """Does jobs, as many at once as it has workers."""

    workers: int

    def submit(self, job: AnyJob) -> Future[Any]:
        """Begin a job."""
        ...


class BenchKeeper:
    """Keeps the bench of the last job for the next one, which usually has the same config."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._bench: tuple[Any, Bench] | None = None

    def bench(self, job: Job) -> Bench:
        """The bench that a job needs."""
        key = job.bench_key
        if self._bench is None or self._bench[0] != key:
            self._bench = None
            self._bench = (key, job.open_bench(self.device))
        return self._bench[1]


class InProcess:
    """Does each job in this process when it is submitted, with one thread, as results may depend on their number."""

    workers = 1

    def __init__(self, device: str, on_step: OnStep) -> None:
        self._keeper = BenchKeeper(device)
        self._on_step = on_step

    def submit(self, job: Job) -> Future[Any]:
        """Do a job; the future is done when this returns."""
        future: Future[Any] = Future()
        with torch_threads(1):
            try:
                future.set_result(job.do(self._keeper.bench(job), self._on_step))
            except Exception as error:
                future.set_exception(error)
        return future


_worker: dict[str, Any] = {}


def _start_worker(devices: Any, steps: Any) -> None:
    _worker["keeper"] = BenchKeeper(devices.get())
    _worker["steps"] = steps


def _work(job: Job) -> Any:
    return job.do(_worker["keeper"].bench(job), _worker["steps"].put)


class Processes:
    """Processes on this machine with one thread and one device each.

    Args:
        pool: its workers were started with `_start_worker`.
        workers: number of them.
    """

    def __init__(self, pool: WorkerPool, workers: int) -> None:
        self._pool, self.workers = pool, workers

    def submit(self, job: Job) -> Future[Any]:
        """Hand a job to the next worker that is free."""
        return self._pool.submit(_work, job)


@contextmanager
def local_executor(devices: list[str], on_step: OnStep) -> Iterator[Executor[Job]]:
    """An executor on this machine: in this process for one worker, else in processes of their own.

    Args:
        devices: one for each worker.
        on_step: called in this process with the arguments that the jobs give.

    Raises:
        GPTDynamicsError: a worker process died.
    """
    if len(devices) == 1:
        yield InProcess(devices[0], on_step)
        return
    context = multiprocessing.get_context("spawn")
    device_queue, steps = context.Queue(), context.Queue()
    for device in devices:
        device_queue.put(device)

    def forward() -> None:
        while (config := steps.get()) is not None:
            on_step(config)

    listener = threading.Thread(target=forward, daemon=True)
    listener.start()
    try:
        with worker_pool(len(devices), _start_worker, (device_queue, steps)) as pool:
            yield Processes(pool, len(devices))
    except BaseException as error:
        # A killed worker may still hold the queue's lock, so this process must not wait for it.
        for queue in (device_queue, steps):
            queue.cancel_join_thread()
        if isinstance(error, BrokenProcessPool):
            raise GPTDynamicsError(
                "a worker process died (out of memory?). Finished runs are kept: run the same command again, "
                "perhaps with fewer --workers"
            ) from error
        raise
    steps.put(None)
    listener.join(timeout=5)
