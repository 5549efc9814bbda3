"""Collecting a plan into a dataset folder."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from gptdynamics.collection.claims import Claims
from gptdynamics.collection.jobs import VECTORS, RunJob
from gptdynamics.collection.memory import check_memory
from gptdynamics.collection.settings import Collected, CollectSettings, missing_kernels, missing_runs
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.ownership import check_dataset_folder
from gptdynamics.errors import DivergedRunError
from gptdynamics.examples import Example
from gptdynamics.models.local_models import published_name, remember_folder
from gptdynamics.plans import PlanEntry
from gptdynamics.runs.bench import Bench
from gptdynamics.runs.processes import Executor, local_executor
from gptdynamics.tasks.loading import replaced_note

OnStart = Callable[[str, int], None]
OnStep = Callable[[str], None]
OnNote = Callable[[str], None]
POLL_SECONDS = 0.5


class _Collector:
    """One collection in progress."""

    def __init__(self, settings: CollectSettings, on_start: OnStart, on_run: OnStep, on_note: OnNote) -> None:
        self.settings = settings
        self.on_start = on_start
        self.on_run = on_run
        self.on_note = on_note
        self.folder = DatasetFolder(settings.out)
        self.claims = Claims(self.folder.root)
        self.collected = Collected()
        self.bases: dict[str, tuple[str, str]] = {}
        self.test: dict[str, list[Example]] = {}
        self.pool_ids: dict[str, list[int]] = {}

    def _prepare(self, entry: PlanEntry) -> list[RunJob]:
        """Write the files that the runs of a config share; returns its missing jobs."""
        config, missing = entry.config, missing_runs(self.settings.out, entry)
        failed = self.folder.failed(config)
        self.collected.failed |= {f"{config}/{run}": failed[run] for run in entry.run_names if run in failed}
        existing = [run for run in entry.run_names if run not in missing and run not in failed]
        self.collected.skipped += [f"{config}/{run}" for run in existing]
        bench = Bench.load(entry.settings, self.settings.data, entry.unseen_runs > 0)
        self.collected.cut[config] = bench.cut
        note = replaced_note(entry.settings.task, [*bench.pool, *bench.test])
        if note is not None:
            self.on_note(note)
        with self.claims.whole_folder():
            self.folder.begin(entry, bench.base.revision)
            self.folder.add_examples(entry.settings.task, "pool", bench.pool)
            self.folder.add_examples(entry.settings.task, "test", bench.test)
            if self.folder.finished(config):
                # An interrupted collection may have written runs that are not in the card.
                self.folder.write_card()
        remember_folder(bench.base.name, bench.base.revision)
        self.bases[config] = (published_name(bench.base.name), bench.base.revision)
        self.test[config] = bench.test
        self.pool_ids[config] = [example.id for example in bench.pool]
        kernels = missing_kernels(self.settings.out, entry)
        names = [*missing, *(run for run in kernels if run not in missing)]
        if entry.settings.gradients != "none" and not self.folder.has_vectors(config, self.pool_ids[config]):
            names.insert(0, VECTORS)
        self.on_start(config, sum(name != VECTORS for name in names) * (entry.settings.run_steps + 1))
        return [
            RunJob(
                entry.settings,
                self.settings.data,
                entry.unseen_runs > 0,
                name,
                entry.kernel if name in kernels else None,
            )
            for name in names
        ]

    def _jobs(self) -> Iterator[RunJob]:
        for entry in self.settings.plan:
            yield from self._prepare(entry)

    def _is_done(self, job: RunJob) -> bool:
        config = job.settings.config
        if job.name == VECTORS:
            return self.folder.has_vectors(config, self.pool_ids[config])
        if job.name in self.folder.failed(config):
            return True
        has_kernel = job.kernels is None or self.folder.products_path(config, job.name).exists()
        return has_kernel and job.name in self.folder.finished(config)

    def _save(self, job: RunJob, future: Future[Any]) -> None:
        config, collected = job.settings.config, self.collected
        label = f"{config}/{job.name}"
        try:
            result = future.result()
        except DivergedRunError as error:
            self.folder.add_failure(config, job.name, str(error))
            collected.failed[label] = str(error)
        else:
            if job.name == VECTORS:
                pool, test = result
                test_ids = [example.id for example in self.test[config]]
                self.folder.add_vectors(job.settings, (self.pool_ids[config], pool), (test_ids, test))
                if self.folder.finished(config):
                    self._write_card()
                return
            if job.kernels is not None:
                collected.kernels.append(label)
            if job.name in self.folder.finished(config):
                # It was repeated for its kernel only.
                self.folder.add_products(config, job.settings.pool_ids, result)
            else:
                self.folder.add_run(job.settings, self.bases[config], self.test[config], result)
                collected.done.append(label)
                collected.forward_passes.append(result.timing.forward_passes)
                collected.sampled += result.timing.sampled
                collected.tied += result.timing.tied
            self._write_card()
        self.on_run(label)

    def _write_card(self) -> None:
        with self.claims.whole_folder():
            self.folder.write_card()

    def _record_elsewhere(self, job: RunJob) -> None:
        """Record the outcome of a run that another collector made meanwhile."""
        reason = self.folder.failed(job.settings.config).get(job.name)
        label = f"{job.settings.config}/{job.name}"
        if reason is not None:
            self.collected.failed[label] = reason
        elif job.name != VECTORS:
            self.collected.skipped.append(label)

    def run(self, executor: Executor[RunJob]) -> None:
        """Do all missing jobs, except those that another collector is doing."""
        jobs = self._jobs()
        claimed_elsewhere: deque[RunJob] = deque()
        in_flight: dict[Future[Any], RunJob] = {}
        exhausted = False
        while True:
            while len(in_flight) < executor.workers:
                job = None if exhausted else next(jobs, None)
                if job is None:
                    exhausted = True
                    if not claimed_elsewhere:
                        break
                    job = claimed_elsewhere.popleft()
                if not self.claims.take(job.claim):
                    claimed_elsewhere.append(job)
                    if exhausted:
                        break
                elif self._is_done(job):
                    self.claims.give_back(job.claim)
                    self._record_elsewhere(job)
                else:
                    in_flight[executor.submit(job)] = job
            if in_flight:
                has_idle_workers = len(in_flight) < executor.workers
                finished, _ = wait(
                    in_flight, timeout=POLL_SECONDS if has_idle_workers else None, return_when=FIRST_COMPLETED
                )
                for future in finished:
                    job = in_flight.pop(future)
                    self._save(job, future)
                    self.claims.give_back(job.claim)
            elif exhausted and not claimed_elsewhere:
                return
            else:
                time.sleep(POLL_SECONDS)


def _executor(
    settings: CollectSettings, jobs: int, on_step: OnStep, on_note: OnNote
) -> AbstractContextManager[Executor[RunJob]]:
    """The executor of the jobs."""
    if settings.ray is None:
        return local_executor(settings.devices()[: max(1, jobs)], on_step)
    from gptdynamics.collection.ray_executor import ray_executor

    return ray_executor(settings.ray, settings.device, settings.workers, jobs, on_step, on_note)


def collect(
    settings: CollectSettings,
    on_start: OnStart = lambda config, total: None,
    on_step: OnStep = lambda config: None,
    on_run: OnStep = lambda run: None,
    on_note: OnNote = lambda line: None,
) -> Collected:
    """Make the missing runs of a plan and write each when it ends.

    Several collectors on one folder share the work: each run is made by one of them.

    Args:
        settings: of the collection.
        on_start: called with a config's name and the number of measured steps that its missing runs will have.
        on_step: called with the config's name after each measured step.
        on_run: called with `<config>/<run>` when a run has ended.
        on_note: called with a line about rows whose texts had unpaired surrogates, and about events on a Ray cluster: a
            lost node, a long wait.

    Raises:
        GPTDynamicsError: the data, the base model, the folder or the Ray cluster cannot be used, or the workers do not
            fit in the free memory.
    """
    check_dataset_folder(settings.out)
    check_memory(settings)
    folder = DatasetFolder(settings.out)
    for entry in settings.plan:
        folder.check_settings(entry)
    folder.remove_leftovers()
    collector = _Collector(settings, on_start, on_run, on_note)
    collector.claims.remove_left()
    jobs = sum(len(missing_runs(settings.out, entry)) for entry in settings.plan)
    with ExitStack() as stack:
        stack.callback(collector.claims.give_back_all)
        executor = stack.enter_context(_executor(settings, jobs, on_step, on_note))
        collector.run(executor)
    # Leftovers of collectors that were killed meanwhile.
    folder.remove_leftovers()
    return collector.collected
