"""Processes that work in parallel, and that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any


class WorkerPool(ProcessPoolExecutor):
    """A pool of new processes that ignore Ctrl-C: this process ends them.

    Args:
        workers: number of processes.
        initializer: called in each before its first work, after `begin_worker`.
        initargs: its arguments.
    """

    def __init__(self, workers: int, initializer: Callable[..., None], initargs: tuple[Any, ...] = ()) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(workers, mp_context=context, initializer=_begin, initargs=(initializer, initargs))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit work. Processes start here and inherit the blocked signal: Ctrl-C cannot break their imports."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(function, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end_workers(self) -> None:
        """Kill the processes; their unfinished work fails."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(wait=False, cancel_futures=True)


@contextmanager
def worker_pool(workers: int, initializer: Callable[..., None], initargs: tuple[Any, ...] = ()) -> Iterator[WorkerPool]:
    """A `WorkerPool` that is closed at the end, or killed after an error or an interruption."""
    pool = WorkerPool(workers, initializer, initargs)
    try:
        yield pool
    except BaseException:
        pool.end_workers()
        raise
    pool.shutdown(cancel_futures=True)


def _begin(initializer: Callable[..., None], initargs: tuple[Any, ...]) -> None:
    begin_worker()
    initializer(*initargs)


def begin_worker() -> None:
    """Set up a worker process: it ignores Ctrl-C, has one thread, and ends with its parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _exit_with_parent() -> None:
    """Exit when the parent does, because a worker whose parent was killed would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
