"""Collecting the runs of a config: side by side in processes, written as each one ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptdynamics.configs import RunSettings, run_name
from gptdynamics.errors import DivergedRunError, GPTDynamicsError, SettingsError
from gptdynamics.examples import Example

OnStep = Callable[[int], None]


@dataclass(frozen=True)
class CollectSettings:
    """What one `collect` does.

    Attributes:
        run: settings of the config's runs.
        out: the dataset folder.
        runs: collect runs 0..runs-1; those already there are not done again.
        data: folder with local rows; None: bundled rows or the Hub.
        workers: processes, with one thread each.
    """

    run: RunSettings
    out: Path
    runs: int = 32
    data: Path | None = None
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        for name in ("runs", "workers"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass
class Collected:
    """What a collection did.

    Attributes:
        done: indices of runs made now.
        skipped: indices of runs that were already there.
        failed: reasons of runs that diverged, by index.
        cut: test and pool examples whose prompts were cut from the left to fit the context.
        forward_passes: for each run made now, cost of one loss measurement in forward passes over the
            test set's non-padding tokens.
    """

    done: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    cut: int = 0
    forward_passes: list[float] = field(default_factory=list)


class Bench:
    """A config's base model, pool and test set, ready for its runs.

    Args:
        settings: of the config.
        data: folder with local rows, or None.
    """

    def __init__(self, settings: RunSettings, data: Path | None) -> None:
        from gptdynamics.base_model import load_base_model
        from gptdynamics.measurement import TestSet
        from gptdynamics.tasks import get_task, load_examples
        from gptdynamics.tokens import tokenize_example

        self.settings = settings
        task = get_task(settings.task)
        self.pool: list[Example] = load_examples(task, "pool", settings.pool_size, data)
        self.test: list[Example] = load_examples(task, "test", settings.test_examples, data)
        self.base = load_base_model(settings.base)
        context = min(self.base.context, settings.max_length)
        self.tokenized = {
            example.id: tokenize_example(self.base.tokenizer, example, context, task.generates) for example in self.pool
        }
        self.test_set = TestSet(task, self.test, self.base, settings, list(self.tokenized.values()))
        self.cut = self.test_set.cut + sum(example.cut > 0 for example in self.tokenized.values())

    def run(self, index: int, on_step: OnStep) -> Any:
        """Make run `index`."""
        from gptdynamics.runs import train_run

        return train_run(self.base, self.tokenized, self.test_set, self.settings, index, on_step)


_worker: dict[str, Any] = {}


def _start_worker(settings: RunSettings, data: Path | None, steps: Any) -> None:
    import torch

    torch.set_num_threads(1)
    _worker["bench"] = Bench(settings, data)
    _worker["steps"] = steps


def _work(index: int) -> Any:
    return _worker["bench"].run(index, _worker["steps"].put)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A run's numbers may depend on the number of threads, so every run has one, wherever it is made."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _results_here(bench: Bench, missing: list[int], on_step: OnStep) -> Iterator[tuple[int, Any]]:
    with _one_thread():
        for index in missing:
            try:
                yield index, bench.run(index, on_step)
            except DivergedRunError as error:
                yield index, error


def _results_side_by_side(settings: CollectSettings, missing: list[int], on_step: OnStep) -> Iterator[tuple[int, Any]]:
    context = multiprocessing.get_context("spawn")
    steps = context.Queue()

    def forward() -> None:
        while (step := steps.get()) is not None:
            on_step(step)

    listener = threading.Thread(target=forward, daemon=True)
    listener.start()
    pool = ProcessPoolExecutor(
        min(settings.workers, len(missing)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(settings.run, settings.data, steps),
    )
    try:
        futures = {pool.submit(_work, index): index for index in missing}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except DivergedRunError as error:
                yield futures[future], error
    except BrokenProcessPool as error:
        raise GPTDynamicsError(
            "a worker process died (out of memory?). Finished runs are kept: run the same command again, "
            "perhaps with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        steps.put(None)
        listener.join(timeout=5)


def missing_runs(settings: CollectSettings) -> list[int]:
    """Indices of the runs that a collection would make: those without files, diverged ones left as they are."""
    from gptdynamics.dataset.folder import DatasetFolder

    folder = DatasetFolder(settings.out)
    there = {*folder.finished(settings.run.config), *folder.failed(settings.run.config)}
    return [index for index in range(settings.runs) if index not in there]


def collect(
    settings: CollectSettings,
    on_start: Callable[[int], None] = lambda measurements: None,
    on_step: OnStep = lambda step: None,
    on_run: Callable[[str], None] = lambda run: None,
) -> Collected:
    """Make the missing runs of a config and write each as it ends.

    Args:
        settings: what to collect, and where to.
        on_start: called once with the number of measurements to come.
        on_step: called after each measurement, from any thread.
        on_run: called with the name of each run that was written.

    Raises:
        GPTDynamicsError: settings or rows are wrong, or a worker died. Runs already written stay.
    """
    from gptdynamics.dataset.folder import DatasetFolder

    folder = DatasetFolder(settings.out)
    config = settings.run.config
    bench = Bench(settings.run, settings.data)
    folder.begin(settings.run, bench.base.revision)
    folder.add_examples(settings.run.task, "pool", bench.pool)
    folder.add_examples(settings.run.task, "test", bench.test)
    missing = missing_runs(settings)
    failed = {at: reason for at, reason in folder.failed(config).items() if at < settings.runs}
    skipped = [at for at in range(settings.runs) if at not in missing and at not in failed]
    collected = Collected(skipped=skipped, failed=failed, cut=bench.cut)
    on_start(len(missing) * (settings.run.run_steps + 1))
    if not missing:
        if folder.finished(config):
            folder.write_card()  # an interrupted collection may have left it behind the runs
        return collected
    if min(settings.workers, len(missing)) == 1:
        results = _results_here(bench, missing, on_step)
    else:
        results = _results_side_by_side(settings, missing, on_step)
    test_ids = [example.id for example in bench.test]
    for index, result in results:
        if isinstance(result, DivergedRunError):
            folder.add_failure(config, index, str(result))
            collected.failed[index] = str(result)
        else:
            folder.add_run(settings.run, bench.base, test_ids, result)
            collected.done.append(index)
            collected.forward_passes.append(result.timing.forward_passes)
        on_run(run_name(index))
    return collected
