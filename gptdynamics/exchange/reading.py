"""Runs in the authors' layout: which folders there are, what is in one, and which of a config fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
from gptdynamics.exchange.trajectories import MetricFile, read_batches, read_metric

RUN_OUT = "the run is left out"
METRIC_OUT = "this metric of the run is left out"


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

    @property
    def last_step(self) -> int:
        """The last step at which anything was measured."""
        return max(measured.step[-1] for measured in self.metrics.values())


def run_folders(root: Path, findings: Findings) -> list[RunFolder]:
    """The folders `runs/<task>/output_...` of a release whose names can be read; the others are noted.

    Raises:
        DataError: there is no folder `runs`.
    """
    runs = root / "runs"
    if not runs.is_dir():
        raise DataError(f"{root}: no folder runs/ in it: not a release in the authors' layout")
    found = []
    for path in sorted(path for group in runs.iterdir() if group.is_dir() for path in group.iterdir()):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            found.append(parse_run_folder(relative))
        except DataError as error:
            findings.add(relative.as_posix(), str(error), "not read")
    return found


def read_run(
    root: Path, folder: RunFolder, examples: TaskExamples, findings: Findings, last: bool = False
) -> ReleasedRun | None:
    """Read the files of one run; None, and a finding, if it has no sound curriculum or no sound loss.

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
    there = {each.name for each in path.iterdir() if each.is_file()}
    names = {f"all_{metric}_trajectory.out": metric for metric in METRICS}
    for name in sorted(there - {*names, CURRICULUM_FILE}):
        if not name.startswith("."):
            findings.add(f"{folder.path}/{name}", "the layout has no such file", "not read")
    lacking = sorted({CURRICULUM_FILE, "all_loss_trajectory.out"} - there)
    if lacking:
        findings.add(folder.path, f"it has no {' and no '.join(lacking)}", RUN_OUT)
        return None
    place = f"{folder.path}/{CURRICULUM_FILE}"
    pool, test = ({example.id for example in part} for part in (examples.pool, examples.test))
    try:
        batches = read_batches(path / CURRICULUM_FILE, place, findings, last)
        unknown = sorted({at for batch in batches for at in batch} - pool)
        if unknown:
            raise DataError(f"id {some(unknown)} is not one of the training examples of {folder.task}")
    except DataError as error:
        findings.add(place, str(error), RUN_OUT)
        return None
    _compare_with_name(folder, batches, place, findings)
    metrics: dict[str, MetricFile] = {}
    for name, metric in names.items():
        if name not in there:
            continue
        place = f"{folder.path}/{name}"
        try:
            measured = read_metric(path / name, place, findings, last)
            metrics[metric] = _followed(measured, metric, len(batches), test, place, findings)
        except DivergedRunError as error:
            if metric == "loss":
                raise
            findings.add(place, str(error), METRIC_OUT)
        except DataError as error:
            findings.add(place, str(error), RUN_OUT if metric == "loss" else METRIC_OUT)
            if metric == "loss":
                return None
    return ReleasedRun(
        folder, batches, metrics, frozenset(metric for name, metric in names.items() if name not in there)
    )


def _compare_with_name(folder: RunFolder, batches: list[list[int]], place: str, findings: Findings) -> None:
    sizes = Counter(len(batch) for batch in batches)
    if folder.batch_size is not None and set(sizes) != {folder.batch_size}:
        other = sum(count for size, count in sizes.items() if size != folder.batch_size)
        findings.add(place, f"{other} batches are not of {folder.batch_size} examples, as bs of its name says", "kept")


def _followed(
    measured: MetricFile, metric: str, updates: int, test: set[int], place: str, findings: Findings
) -> MetricFile:
    """The trajectories without unknown test examples and without steps that no batch is known of."""
    unknown = [at for at in measured.ids if at not in test]
    if unknown:
        findings.add(place, f"id {some(unknown)} is not one of the test examples", "those trajectories are left out")
        measured = measured.only(test)
    beyond = [step for step in measured.step if step > updates]
    if beyond:
        findings.add(place, f"no batch is known of step {some(beyond)}", "those steps are left out")
        measured = measured.until(updates)
    if not measured.values.size:
        raise DataError("nothing is left of it")
    if not np.isfinite(measured.values).all():
        step, at = (int(place) for place in np.argwhere(~np.isfinite(measured.values))[0])
        raise DivergedRunError(
            f"{metric} of test example {measured.ids[at]} is not finite at step {measured.step[step]}"
        )
    low, high = RANGES[metric]
    outside = (measured.values < low) | (measured.values > high)
    if metric == "accuracy":
        outside = (measured.values != low) & (measured.values != high)
    if outside.any():
        allowed = f"{low:g} {'or' if metric == 'accuracy' else 'to'} {high:g}"
        raise DataError(f"{metric} is {measured.values[outside][0]:g} somewhere, not {allowed}")
    return measured


def fit_together(runs: Sequence[ReleasedRun], findings: Findings) -> list[ReleasedRun]:
    """The runs that can be read as one config: all have the steps and test examples that most of them have.

    Args:
        runs: of one config.
        findings: gathers what does not fit.
    """
    if not runs:
        return []
    usual = _most_frequent(_measured(run.metrics["loss"]) for run in runs)
    fitting = []
    for run in runs:
        loss = run.metrics["loss"]
        if _measured(loss) == usual:
            fitting.append(run)
        else:
            findings.add(run.folder.path, f"its loss {_difference(loss, *usual)}", RUN_OUT)
    steps = _most_frequent(
        tuple(run.metrics[metric].step) for run in fitting for metric in GENERATED_METRICS if metric in run.metrics
    )
    usual_of = {}
    for metric in METRICS[1:]:
        ids = _most_frequent(frozenset(run.metrics[metric].ids) for run in fitting if metric in run.metrics)
        usual_of[metric] = (steps if metric in GENERATED_METRICS else usual[0], ids)
    return [replace(run, metrics=_fitting_metrics(run, usual_of, findings)) for run in fitting]


def _fitting_metrics(
    run: ReleasedRun, usual: dict[str, tuple[tuple[int, ...], frozenset[int]]], findings: Findings
) -> dict[str, MetricFile]:
    kept = {"loss": run.metrics["loss"]}
    for metric, wanted in usual.items():
        if metric in run.absent and wanted[1]:
            findings.add(
                run.folder.path, f"it has no all_{metric}_trajectory.out, unlike others of its config", METRIC_OUT
            )
        if metric not in run.metrics:
            continue
        place, measured = f"{run.folder.path}/all_{metric}_trajectory.out", run.metrics[metric]
        if _measured(measured) != wanted:
            findings.add(place, f"it {_difference(measured, *wanted)}", METRIC_OUT)
        elif not set(measured.ids) <= set(run.metrics["loss"].ids):
            findings.add(place, "it has test examples that have no loss", METRIC_OUT)
        else:
            kept[metric] = measured
    return kept


def _measured(measured: MetricFile) -> tuple[tuple[int, ...], frozenset[int]]:
    return tuple(measured.step), frozenset(measured.ids)


def _most_frequent(things: Iterable[Any]) -> Any:
    """The most frequent of sized things; of several the longest, and of those the first; () if there are none."""
    counts = Counter(things)
    return max(counts, key=lambda thing: (counts[thing], _extent(thing)), default=())


def _extent(thing: Any) -> int:
    return sum(map(len, thing)) if isinstance(thing, tuple) and thing and isinstance(thing[0], tuple) else len(thing)


def _difference(measured: MetricFile, steps: tuple[int, ...], ids: frozenset[int]) -> str:
    """How it differs from the steps and test examples that most runs of the config have."""
    mine = set(measured.step), set(measured.ids)
    said = []
    for (name, there), usual in zip((("step", mine[0]), ("test example", mine[1])), (set(steps), ids), strict=True):
        if lacks := sorted(usual - there):
            said.append(f"lacks {name} {some(lacks)}")
        if more := sorted(there - usual):
            said.append(f"has {name} {some(more)}")
    return f"{' and '.join(said)}, unlike most runs of its config"
