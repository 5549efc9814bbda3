"""Real trainings on curricula of one's own, side by side: what simulated ones are judged by."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch

from gptdynamics.base_model import load_base_model
from gptdynamics.collection.executor import begin_worker
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.schema import GENERATED_METRICS
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.measurement import TestSet
from gptdynamics.measurement.test_set import new_token_limits
from gptdynamics.runs import Run, train_run
from gptdynamics.tasks import get_single_task
from gptdynamics.tokens import TokenizedExample, tokenize_example
from simulator.baselines.replay import trained_with
from simulator.use_cases.kept_runs import KeptRuns

if TYPE_CHECKING:
    from gptdynamics.curriculum import Curriculum

Found = TypeVar("Found")
Given = TypeVar("Given", covariant=True)


@dataclass(frozen=True)
class Stage:
    """What trials share.

    Attributes:
        settings: hyper-parameters; `eval_every` and `generate_every` say after which updates is measured.
        pool: examples that curricula name.
        test: examples that are measured.
        generate: also sample text for the test examples of tasks that generate it, and score it.
    """

    settings: RunSettings
    pool: tuple[Example, ...]
    test: tuple[Example, ...]
    generate: bool = False


class OpenStage:
    """A stage with its base model loaded and its texts tokenised.

    Args:
        stage: what to load.
    """

    def __init__(self, stage: Stage) -> None:
        self.settings = stage.settings
        self.pool = {example.id: example for example in stage.pool}
        self.base = load_base_model(stage.settings.base)
        self.tokenized = {key: self.tokenize(example) for key, example in self.pool.items()}
        limits = new_token_limits(stage.pool, list(self.tokenized.values()))
        self.test_set = TestSet(stage.test, self.base, stage.settings, limits)
        if not stage.generate:
            self.test_set.generator = None

    def tokenize(self, example: Example) -> TokenizedExample:
        """An example as it is trained on."""
        context = min(self.base.context, self.settings.max_length)
        return tokenize_example(self.base.tokenizer, example, context, get_single_task(example.task).generates)

    def relabelled(self, targets: Mapping[int, str]) -> dict[int, TokenizedExample]:
        """The pool with other targets for some of its examples."""
        changed = {key: self.tokenize(replace(self.pool[key], target=target)) for key, target in targets.items()}
        return self.tokenized | changed


class Work(Protocol[Given]):
    """Something to do on a stage; it is sent to a process, and what it finds is sent back."""

    def do(self, stage: OpenStage) -> Given:
        """Do it."""
        ...


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        curriculum: `[steps][batch]` pool ids.
        run: a run's name, which seeds what is random in a training besides the curriculum.
        targets: other targets than the pool's, by id.
    """

    curriculum: Curriculum
    run: str = "0000"
    targets: Mapping[int, str] = field(default_factory=dict)

    def do(self, stage: OpenStage) -> Run:
        """Train and measure.

        Raises:
            DivergedRunError: a loss is not finite.
        """
        settings = replace(stage.settings, gradients="none")
        pool = stage.relabelled(self.targets)
        return train_run(stage.base, pool, stage.test_set, settings, self.run, curriculum=self.curriculum)


_worker: dict[str, Any] = {}


def _start(stage: Stage) -> None:
    begin_worker()
    _worker["stage"] = stage


def _work(work: Work[Found]) -> tuple[Found, float]:
    # Opened here, not when the process starts, so that what goes wrong is heard of.
    if isinstance(_worker["stage"], Stage):
        _worker["stage"] = OpenStage(_worker["stage"])
    began = time.process_time()
    return work.do(_worker["stage"]), time.process_time() - began


@dataclass(frozen=True)
class Worked(Generic[Found]):
    """What works found, in their order, and the processor seconds that those done now took."""

    found: list[Found]
    seconds: float
    done: int

    @property
    def each(self) -> float | None:
        """Processor seconds of one; None if all were there already."""
        return self.seconds / self.done if self.done else None


def train_all(
    stage: Stage,
    trials: Sequence[Trial],
    keep: Path,
    workers: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Worked[Run]:
    """Make the runs of trials, but for those that `keep` has; each is kept when it ends.

    Args:
        stage: what they share.
        trials: what to train.
        keep: folder.
        workers, on_progress: as of `work_through`.

    Raises:
        GPTDynamicsError: the base model cannot be had, a training diverged, or a process died.
    """
    kept = KeptRuns(keep, stage, load_base_model(stage.settings.base).revision)
    found = [kept.load(trial) for trial in trials]
    missing = [trial for trial, run in zip(trials, found, strict=True) if run is None]
    for _ in range(len(trials) - len(missing)):
        on_progress()
    seconds, made = 0.0, []
    for at, run, took in work_through(stage, missing, workers):
        kept.save(missing[at], run)
        made.append((at, run))
        seconds += took
        on_progress()
    new = iter([run for _, run in sorted(made, key=lambda pair: pair[0])])
    return Worked([run or next(new) for run in found], seconds, len(missing))


def work_through(
    stage: Stage, works: Sequence[Work[Found]], workers: int | None = None
) -> Iterator[tuple[int, Found, float]]:
    """Do all works, in processes with one thread each; the place, the finding and the processor seconds of each.

    Args:
        stage: what they share.
        works: what to do.
        workers: processes; 1: in this one. Default: one a core.

    Yields:
        In the order in which they end.

    Raises:
        GPTDynamicsError: the base model cannot be had, a training diverged, or a process died.
    """
    if workers is not None and workers < 1:
        raise SettingsError(f"workers={workers} must be at least 1")
    count = min(workers or os.cpu_count() or 1, len(works))
    if count <= 1:
        yield from _here(stage, works)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(stage,))
    try:
        places = {pool.submit(_work, work): at for at, work in enumerate(works)}
        for future in as_completed(places):
            yield places[future], *future.result()
    except BrokenProcessPool as error:
        raise GPTDynamicsError(
            "a training process died (out of memory?). Finished trainings are kept: run the same command again, "
            "perhaps with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _here(stage: Stage, works: Sequence[Work[Found]]) -> Iterator[tuple[int, Found, float]]:
    if not works:
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        opened = OpenStage(stage)
        for at, work in enumerate(works):
            began = time.process_time()
            found = work.do(opened)
            yield at, found, time.process_time() - began
    finally:
        torch.set_num_threads(before)


def stage_of(runs: Dynamics, test: Sequence[Example], measured: int) -> Stage:
    """The stage that a config's runs were made on, for trainings to be compared with simulated ones.

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
    settings = replace(settings, eval_every=every, generate_every=every)
    return Stage(settings, tuple(runs.pool), tuple(test), generate=runs.metric in GENERATED_METRICS)
