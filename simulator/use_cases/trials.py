"""Real trainings on curricula of one's own, side by side: what simulated ones are judged by."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from gptdynamics.models.base_model import model_revision
from gptdynamics.runs import Bench, BenchContents, Run
from gptdynamics.runs.processes import OnStep, local_executor
from simulator.baselines.replay import trained_with
from simulator.use_cases.trial import KeptRuns, Trial

Result = TypeVar("Result")
Given = TypeVar("Given", covariant=True)


class Work(Protocol[Given]):
    """Something to do on a bench; it is sent to a process, and its result is sent back."""

    def do(self, bench: Bench) -> Given:
        """Do it."""
        ...


@dataclass(frozen=True)
class _TimedWork:
    """A work with what its bench is made of, as processes are sent it; its result and its processor seconds."""

    contents: BenchContents
    work: Work[Any]

    @property
    def bench_key(self) -> Any:
        return self.contents

    def open_bench(self, device: str) -> Bench:
        return Bench(self.contents, device)

    def do(self, bench: Bench, on_step: OnStep) -> tuple[Any, float]:
        began = time.process_time()
        return self.work.do(bench), time.process_time() - began


@dataclass(frozen=True)
class Worked(Generic[Result]):
    """Results of works, in their order, and the processor seconds that those done now took."""

    results: list[Result]
    seconds: float
    done: int

    @property
    def each(self) -> float | None:
        """Processor seconds of one; None if all were there already."""
        return self.seconds / self.done if self.done else None


def train_all(
    contents: BenchContents,
    trials: Sequence[Trial],
    keep: Path,
    devices: Sequence[str] = ("cpu",),
    on_progress: Callable[[], None] = lambda: None,
) -> Worked[Run]:
    """Make the runs of trials, but for those that `keep` has; each is kept when it ends.

    Args:
        contents: of the bench that they share.
        trials: what to train.
        keep: folder.
        devices: one for each worker; see `worker_devices`.
        on_progress: called for each run, kept or new.

    Raises:
        GPTDynamicsError: the base model cannot be had, a training diverged, or a process died.
    """
    kept = KeptRuns(keep, contents, model_revision(contents.settings.base))
    runs = [kept.load(trial) for trial in trials]
    missing = [trial for trial, run in zip(trials, runs, strict=True) if run is None]
    for _ in range(len(trials) - len(missing)):
        on_progress()
    seconds, made = 0.0, []
    for index, run, took in do_all(contents, missing, devices):
        kept.save(missing[index], run)
        made.append((index, run))
        seconds += took
        on_progress()
    new = iter([run for _, run in sorted(made, key=lambda pair: pair[0])])
    return Worked([run or next(new) for run in runs], seconds, len(missing))


def do_all(
    contents: BenchContents, works: Sequence[Work[Result]], devices: Sequence[str] = ("cpu",)
) -> Iterator[tuple[int, Result, float]]:
    """Do all works, in processes with one thread each: the index, the result and the processor seconds of each.

    Args:
        contents: of the bench that they share.
        works: what to do.
        devices: one for each worker; a single one works in this process.

    Yields:
        In the order in which they end.

    Raises:
        GPTDynamicsError: the base model cannot be had, a training diverged, or a process died.
    """
    waiting = deque(enumerate(works))
    running: dict[Future[Any], int] = {}
    if not waiting:
        return
    with local_executor(list(devices[: len(waiting)]), lambda name: None) as executor:
        while waiting or running:
            while waiting and len(running) < executor.workers:
                index, work = waiting.popleft()
                running[executor.submit(_TimedWork(contents, work))] = index
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), *future.result()


def trial_contents(runs: Dynamics, test: Sequence[Example], measured: int) -> BenchContents:
    """The bench that a config's runs were made on, for trainings to be compared with simulated ones.

    Args:
        runs: of the config.
        test: test examples to measure.
        measured: steps to measure at, the first and the last among them.

    Raises:
        NotApplicableError: the dataset has no settings or no texts, or the base model is another one here.
        SettingsError: an example has no target.
    """
    settings, _ = trained_with(runs)
    for what, examples in (("pool", runs.pool), ("test", test)):
        for example in examples:
            if not example.target:
                raise SettingsError(f"{what} example {example.id} has no target (label): nothing can be measured on it")
    every = max(1, round(settings.run_steps / max(1, measured - 1)))
    settings = replace(settings, eval_every=every, generate_every=every, gradients="none")
    return BenchContents(settings, tuple(runs.pool), tuple(test), generate=runs.definition.needs_text)
