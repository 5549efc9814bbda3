"""Reads a release in the authors' layout: run folders, examples, the files of a run, and runs that fit together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gptdynamics.dataset.checks.findings import some
from gptdynamics.errors import DataError, DivergedRunError
from gptdynamics.examples import Example
from gptdynamics.exchange.files import MetricFile, ReleaseFile, most_frequent, read_batches, read_examples, read_metric
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.names import (
    CURRICULUM_FILE,
    EXAMPLE_FOLDERS,
    METRIC_FILE,
    RunFolder,
    example_file,
    parse_run_folder,
)
from gptdynamics.metrics import METRICS, names_of

METRIC_FILES = {metric: METRIC_FILE.format(metric) for metric in METRICS}
_RUN_OUT = "the run is left out"
_METRIC_OUT = "this metric of the run is left out"


@dataclass(frozen=True)
class TaskExamples:
    """Examples of a task, in the order of their ids: for training (`pool`) and `test`."""

    pool: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class ReleasedRun:
    """One run of a release.

    Attributes:
        folder: its folder, with the parts of its name.
        batches: `[T][batch]` ids of training examples, from step 1 on.
        metrics: trajectories of the loss and of other metrics, by metric.
        absent: metrics for which it has no file.
    """

    folder: RunFolder
    batches: list[list[int]]
    metrics: dict[str, MetricFile]
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Release:
    """A release.

    Attributes:
        root: its folder.
        findings: collects its problems.
        last: if a step occurs with different values or batches, use the last.
    """

    root: Path
    findings: Findings = field(default_factory=Findings)
    last: bool = False

    def _file(self, path: Path) -> ReleaseFile:
        return ReleaseFile(path, path.relative_to(self.root).as_posix(), self.findings, self.last)

    def folders(self) -> list[RunFolder]:
        """The folders `runs/<task>/output_...` with valid names; the others become findings."""
        if not (self.root / "runs").is_dir():
            raise DataError(f"{self.root}: it has no folder runs/, so it is not a release in the authors' layout")
        folders = []
        for path in sorted(self.root.glob("runs/*/*")):
            if path.is_dir() and not path.name.startswith("."):
                relative = PurePosixPath(path.relative_to(self.root).as_posix())
                try:
                    folders.append(parse_run_folder(relative))
                except DataError as error:
                    self.findings.add(relative.as_posix(), str(error), "not read")
        return folders

    def examples(self) -> dict[str, TaskExamples]:
        """The examples of every task, from all files in `sft_tasks/` and `it_tasks/`."""
        tasks: dict[str, dict[str, dict[int, Example]]] = defaultdict(lambda: {"pool": {}, "test": {}})
        for path in sorted(path for name in EXAMPLE_FOLDERS for path in (self.root / name).rglob("*")):
            if not path.is_file() or path.name.startswith("."):
                continue
            file = self._file(path)
            try:
                named = example_file(path.name)
                if named is None:
                    raise DataError("it is not named <task>_..._train.json or <task>_..._eval.json")
                task, part = named
                read_examples(file, task, part, tasks[task][part])
            except DataError as error:
                self.findings.add(file.place, str(error), "not read")
        return {
            task: TaskExamples(*([parts[part][key] for key in sorted(parts[part])] for part in ("pool", "test")))
            for task, parts in tasks.items()
        }

    def run(self, folder: RunFolder, examples: TaskExamples) -> ReleasedRun | None:
        """Read the files of a run; None, and a finding, if it has no valid curriculum or no valid loss.

        `examples` are those of its task. Raises DivergedRunError if a value of its loss is not finite.
        """
        path, findings = self.root / folder.path, self.findings
        names = {entry.name for entry in path.iterdir() if entry.is_file()}
        for name in sorted(names - {*METRIC_FILES.values(), CURRICULUM_FILE}):
            if not name.startswith("."):
                findings.add(f"{folder.path}/{name}", "the layout has no such file", "not read")
        missing = sorted({CURRICULUM_FILE, METRIC_FILES["loss"]} - names)
        if missing:
            findings.add(folder.path, f"it has no {' and no '.join(missing)}", _RUN_OUT)
            return None
        pool, test = ({example.id for example in part} for part in (examples.pool, examples.test))
        file = self._file(path / CURRICULUM_FILE)
        metrics: dict[str, MetricFile] = {}
        try:
            batches = read_batches(file)
            if unknown := {key for batch in batches for key in batch} - pool:
                raise DataError(f"id {some(sorted(unknown))} is not one of the training examples of {folder.task}")
            deviating = sum(len(batch) != folder.batch_size for batch in batches) if folder.batch_size else 0
            if deviating:
                problem = f"{deviating} batches do not have the {folder.batch_size} examples of bs in its name"
                findings.add(file.place, problem, "kept")
            for metric in [metric for metric in METRICS if METRIC_FILES[metric] in names]:
                file = self._file(path / METRIC_FILES[metric])
                try:
                    metrics[metric] = _checked(read_metric(file), metric, len(batches), test, file)
                except (DataError, DivergedRunError) as error:
                    if metric == "loss":
                        raise
                    findings.add(file.place, str(error), _METRIC_OUT)
        except DataError as error:
            findings.add(file.place, str(error), _RUN_OUT)
            return None
        absent = frozenset(metric for metric in METRICS if METRIC_FILES[metric] not in names)
        return ReleasedRun(folder, batches, metrics, absent)


def _checked(measured: MetricFile, metric: str, updates: int, test: set[int], file: ReleaseFile) -> MetricFile:
    """The trajectories without unknown test examples and without steps whose batch is unknown.

    Raises DivergedRunError if a value is not finite, DataError if no values remain or one is out of its range.
    """
    unknown = [key for key in measured.ids if key not in test]
    late = [step for step in measured.step if step > updates]
    file.findings.add_each(
        file.place,
        (unknown, f"id {some(unknown)} is not one of the test examples", "those trajectories are left out"),
        (late, f"step {some(late)} has no batch", "those steps are left out"),
    )
    rows = [index for index, key in enumerate(measured.ids) if key in test]
    ids, step = [measured.ids[index] for index in rows], measured.step[: len(measured.step) - len(late)]
    values = measured.values[rows, : len(step)]
    if not values.size:
        raise DataError("no values remain")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise DivergedRunError(f"{metric} of test example {ids[row]} is not finite at step {step[column]}")
    outside = METRICS[metric].outside(values)
    if outside.any():
        raise DataError(f"{metric} is {values[outside][0]:g} somewhere, not {METRICS[metric].allowed}")
    return MetricFile(ids, step, values)


def fit_together(runs: Sequence[ReleasedRun], findings: Findings) -> list[ReleasedRun]:
    """The runs of a config that can be read together: those with the most frequent steps, test examples and updates."""
    grids = [run.metrics["loss"].grid for run in runs]
    common = most_frequent(grids, lambda grid: len(grid[0]) + len(grid[1]))
    if common is None:
        return []
    for run, grid in zip(runs, grids, strict=True):
        if grid != common:
            findings.add(run.folder.path, f"its loss {_difference(grid, common)}", _RUN_OUT)
    runs = [run for run, grid in zip(runs, grids, strict=True) if grid == common]
    texts = names_of(METRICS.values(), needs_text=True)
    generated = (run.metrics[metric].grid[0] for run in runs for metric in texts if metric in run.metrics)
    steps = dict.fromkeys(METRICS, common[0]) | dict.fromkeys(texts, most_frequent(generated) or ())
    common_grids = {
        metric: (steps[metric], ids)
        for metric in list(METRICS)[1:]
        if (ids := most_frequent(run.metrics[metric].grid[1] for run in runs if metric in run.metrics))
    }
    runs = [replace(run, metrics=_fitting_metrics(run, common_grids, findings)) for run in runs]
    updates = most_frequent((len(run.batches) for run in runs), int)
    for run in runs:
        if len(run.batches) != updates:
            problem = f"it has {len(run.batches)} updates, but most runs of its config have {updates}"
            findings.add(run.folder.path, problem, _RUN_OUT)
    return [run for run in runs if len(run.batches) == updates]


def _fitting_metrics(run: ReleasedRun, common_grids: dict[str, Any], findings: Findings) -> dict[str, MetricFile]:
    """The run's metrics that have the most frequent steps and test examples of its config."""
    fitting = {"loss": run.metrics["loss"]}
    for metric, common in common_grids.items():
        name = METRIC_FILES[metric]
        if metric in run.absent:
            findings.add(run.folder.path, f"it has no {name}, unlike other runs of its config", _METRIC_OUT)
        elif metric in run.metrics:
            grid = run.metrics[metric].grid
            problem = f"it {_difference(grid, common)}" if grid != common else ""
            if not problem and not grid[1] <= fitting["loss"].grid[1]:
                problem = "it has test examples without a loss"
            if problem:
                findings.add(f"{run.folder.path}/{name}", problem, _METRIC_OUT)
            else:
                fitting[metric] = run.metrics[metric]
    return fitting


def _difference(grid: tuple[Any, Any], common: tuple[Any, Any]) -> str:
    """How steps and test examples differ from those of most runs of the config."""
    parts = []
    for name, present, expected in zip(("step", "test example"), map(set, grid), map(set, common), strict=True):
        parts += [f"lacks {name} {some(sorted(expected - present))}"] if expected - present else []
        parts += [f"has {name} {some(sorted(present - expected))}"] if present - expected else []
    return f"{' and '.join(parts)}, unlike most runs of its config"
