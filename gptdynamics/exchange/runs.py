"""Runs in the authors' layout: which folders there are, what is in one, and which of a config fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gptdynamics.dataset.checks.findings import some
from gptdynamics.dataset.checks.trajectories import RANGES
from gptdynamics.dataset.schema import GENERATED_METRICS, METRICS
from gptdynamics.errors import DataError, DivergedRunError
from gptdynamics.exchange.examples import TaskExamples
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.names import CURRICULUM_FILE, RunFolder, parse_run_folder
from gptdynamics.exchange.run_files import MetricFile, most_frequent, read_batches, read_metric

METRIC_FILES = {metric: f"all_{metric}_trajectory.out" for metric in METRICS}
_RUN_OUT = "the run is left out"
_METRIC_OUT = "this metric of the run is left out"


@dataclass(frozen=True)
class ReleasedRun:
    """One run of a release.

    Attributes:
        folder: where it is, and what its name says.
        batches: `[T][batch]` ids of training examples, of step 1 first.
        metrics: trajectories of loss and of what else was measured, by metric.
        absent: metrics that it has no file of.
    """

    folder: RunFolder
    batches: list[list[int]]
    metrics: dict[str, MetricFile]
    absent: frozenset[str] = frozenset()


def run_folders(root: Path, findings: Findings) -> list[RunFolder]:
    """The folders `runs/<task>/output_...` of a release whose names can be read; the others are noted.

    Raises:
        DataError: there is no folder `runs`.
    """
    if not (root / "runs").is_dir():
        raise DataError(f"{root}: no folder runs/ in it: not a release in the authors' layout")
    folders = []
    for path in sorted(path for path in root.glob("runs/*/*") if path.is_dir() and not path.name.startswith(".")):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        try:
            folders.append(parse_run_folder(relative))
        except DataError as error:
            findings.add(relative.as_posix(), str(error), "not read")
    return folders


def read_run(
    root: Path, folder: RunFolder, examples: TaskExamples, findings: Findings, last: bool = False
) -> ReleasedRun | None:
    """Read the files of one run; None, and a finding, if it has no valid curriculum or no valid loss.

    Args:
        root: the release.
        folder: of the run.
        examples: of its task.
        findings: gathers what is wrong.
        last: where a step occurs with different values or batches, take the last.

    Raises:
        DivergedRunError: its loss is not finite somewhere.
    """
    path = root / folder.path
    names = {each.name for each in path.iterdir() if each.is_file()}
    for name in sorted(names - {*METRIC_FILES.values(), CURRICULUM_FILE}):
        if not name.startswith("."):
            findings.add(f"{folder.path}/{name}", "the layout has no such file", "not read")
    missing = sorted({CURRICULUM_FILE, METRIC_FILES["loss"]} - names)
    if missing:
        findings.add(folder.path, f"it has no {' and no '.join(missing)}", _RUN_OUT)
        return None
    place = f"{folder.path}/{CURRICULUM_FILE}"
    try:
        batches = read_batches(path / CURRICULUM_FILE, place, findings, last)
        unknown = {key for batch in batches for key in batch} - {example.id for example in examples.pool}
        if unknown:
            raise DataError(f"id {some(sorted(unknown))} is not one of the training examples of {folder.task}")
    except DataError as error:
        findings.add(place, str(error), _RUN_OUT)
        return None
    other = sum(len(batch) != folder.batch_size for batch in batches) if folder.batch_size else 0
    if other:
        findings.add(place, f"{other} batches are not of {folder.batch_size} examples, as bs of its name says", "kept")
    metrics: dict[str, MetricFile] = {}
    for metric, name in METRIC_FILES.items():
        if name not in names:
            continue
        place = f"{folder.path}/{name}"
        try:
            measured = read_metric(path / name, place, findings, last)
            measured = _restricted(measured, len(batches), {example.id for example in examples.test}, place, findings)
            _check_values(measured, metric)
            metrics[metric] = measured
        except (DataError, DivergedRunError) as error:
            if metric != "loss":
                findings.add(place, str(error), _METRIC_OUT)
            elif isinstance(error, DivergedRunError):
                raise
            else:
                findings.add(place, str(error), _RUN_OUT)
                return None
    return ReleasedRun(folder, batches, metrics, frozenset(METRICS) - {m for m in METRICS if METRIC_FILES[m] in names})


def _restricted(measured: MetricFile, updates: int, test: set[int], place: str, findings: Findings) -> MetricFile:
    """The trajectories without unknown test examples and without steps whose batch is unknown."""
    unknown = [key for key in measured.ids if key not in test]
    late = [step for step in measured.step if step > updates]
    cases = [
        (unknown, f"id {some(unknown)} is not one of the test examples", "those trajectories are left out"),
        (late, f"no batch is known of step {some(late)}", "those steps are left out"),
    ]
    findings.add_each(place, cases)
    columns = [index for index, key in enumerate(measured.ids) if key in test]
    count = len(measured.step) - len(late)
    return MetricFile(
        [measured.ids[index] for index in columns], measured.step[:count], measured.values[:count, columns]
    )


def _check_values(measured: MetricFile, metric: str) -> None:
    """Raises: DivergedRunError: a value is not finite. DataError: there is none, or one is out of its range."""
    if not measured.values.size:
        raise DataError("nothing is left of it")
    infinite = np.argwhere(~np.isfinite(measured.values))
    if len(infinite):
        row, column = infinite[0]
        example, step = measured.ids[column], measured.step[row]
        raise DivergedRunError(f"{metric} of test example {example} is not finite at step {step}")
    low, high = RANGES[metric]
    outside = (measured.values < low) | (measured.values > high)
    if metric == "accuracy":
        outside = (measured.values != low) & (measured.values != high)
    if outside.any():
        allowed = f"{low:g} {'or' if metric == 'accuracy' else 'to'} {high:g}"
        raise DataError(f"{metric} is {measured.values[outside][0]:g} somewhere, not {allowed}")


def fit_together(runs: Sequence[ReleasedRun], findings: Findings) -> list[ReleasedRun]:
    """The runs that can be read as one config: all have the steps, test examples and updates that most of them have.

    Args:
        runs: of one config.
        findings: gathers what does not fit.
    """
    grids = [run.metrics["loss"].grid for run in runs]
    usual = most_frequent(grids, lambda grid: len(grid[0]) + len(grid[1]))
    for run, grid in zip(runs, grids, strict=True):
        if grid != usual:
            findings.add(run.folder.path, f"its loss {_difference(grid, usual)}", _RUN_OUT)
    runs = [run for run, grid in zip(runs, grids, strict=True) if grid == usual]
    if usual is None:
        return []
    generated = (run.metrics[metric].grid[0] for run in runs for metric in GENERATED_METRICS if metric in run.metrics)
    steps = dict.fromkeys(METRICS, usual[0]) | dict.fromkeys(GENERATED_METRICS, most_frequent(generated) or ())
    usual_grids = {
        metric: (steps[metric], ids)
        for metric in METRICS[1:]
        if (ids := most_frequent(run.metrics[metric].grid[1] for run in runs if metric in run.metrics))
    }
    runs = [replace(run, metrics=_fitting_metrics(run, usual_grids, findings)) for run in runs]
    updates = most_frequent((len(run.batches) for run in runs), int)
    for run in runs:
        if len(run.batches) != updates:
            said = f"it has {len(run.batches)} updates, where most runs of its config have {updates}"
            findings.add(run.folder.path, said, _RUN_OUT)
    return [run for run in runs if len(run.batches) == updates]


def _fitting_metrics(run: ReleasedRun, usual_grids: dict[str, Any], findings: Findings) -> dict[str, MetricFile]:
    """The run's metrics that have the steps and test examples which most runs of its config have."""
    loss = run.metrics["loss"]
    fitting = {"loss": loss}
    for metric, usual in usual_grids.items():
        name = METRIC_FILES[metric]
        if metric in run.absent:
            findings.add(run.folder.path, f"it has no {name}, unlike others of its config", _METRIC_OUT)
        elif metric in run.metrics:
            grid = run.metrics[metric].grid
            problem = f"it {_difference(grid, usual)}" if grid != usual else ""
            if not problem and not grid[1] <= loss.grid[1]:
                problem = "it has test examples that have no loss"
            if problem:
                findings.add(f"{run.folder.path}/{name}", problem, _METRIC_OUT)
            else:
                fitting[metric] = run.metrics[metric]
    return fitting


def _difference(grid: tuple[Any, Any], usual: tuple[Any, Any] | None) -> str:
    """How the steps and test examples differ from those that most runs of the config have."""
    parts = []
    for name, own, others in zip(("step", "test example"), map(set, grid), map(set, usual or ((), ())), strict=True):
        for verb, keys in (("lacks", others - own), ("has", own - others)):
            if keys:
                parts.append(f"{verb} {name} {some(sorted(keys))}")
    return f"{' and '.join(parts)}, unlike most runs of its config"
