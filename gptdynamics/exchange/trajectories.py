"""The files of one run in the authors' layout: its batches, and the trajectories of each metric."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.dataset.checks.findings import some
from gptdynamics.errors import DataError
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.jsonlines import is_count, lines, read_lines

MENDED = "one of them is kept"
LAST = "the last is kept"
_LEFT_OUT = "left out"
_TAKE_LAST = " (--last takes the last)"


@dataclass(frozen=True)
class MetricFile:
    """Trajectories of one metric. S steps, M test examples.

    Attributes:
        ids: of the test examples, in the file's order.
        step: ascending.
        values: `[S, M]` float64.
    """

    ids: list[int]
    step: list[int]
    values: np.ndarray

    def only(self, ids: set[int]) -> MetricFile:
        """Only these test examples."""
        keep = [at for at, each in enumerate(self.ids) if each in ids]
        return MetricFile([self.ids[at] for at in keep], self.step, self.values[:, keep])

    def until(self, step: int) -> MetricFile:
        """Only the steps up to `step`."""
        count = sum(at <= step for at in self.step)
        return MetricFile(self.ids, self.step[:count], self.values[:count])


def read_batches(path: Path, place: str, findings: Findings, last: bool = False) -> list[list[int]]:
    """The batches of a run, `[T][batch]` ids: lines `{"step", "samples_id"}`, steps from 1.

    A step that occurs again with the same batch counts once, and is noted.

    Args:
        path: the file.
        place: what findings call it.
        findings: gathers what is wrong.
        last: of several batches of a step take the last, as the authors' code does.

    Raises:
        DataError: there is none; a step is missing or (without `last`) has two different batches: the curriculum is not
            known.
    """
    batches: dict[int, list[int]] = {}
    again: list[int] = []
    differing: list[int] = []
    odd: list[int] = []
    extra: set[str] = set()
    for number, line in read_lines(path, place, findings):
        step, batch = line.get("step"), line.get("samples_id")
        if not is_count(step) or not isinstance(batch, list) or not batch or not all(map(is_count, batch)):
            odd.append(number + 1)
            continue
        if step in batches and batches[step] != batch:
            if not last:
                raise DataError(f"step {step} has two different batches{_TAKE_LAST}")
            differing.append(step)
        elif step in batches:
            again.append(step)
        batches[step] = batch
        extra |= line.keys() - {"step", "samples_id"}
    _note_extra(extra, place, findings)
    if odd:
        findings.add(place, f"{lines(odd)} no step with the ids of its batch", _LEFT_OUT)
    if not batches:
        raise DataError("it is empty")
    if again:
        findings.add(place, f"step {some(again)} occurs more than once with the same batch", MENDED)
    if differing:
        findings.add(place, f"step {some(differing)} has different batches", LAST)
    missing = sorted(set(range(1, max(batches) + 1)) - batches.keys()) if max(batches) < 10**7 else [1]
    if missing or 0 in batches:
        raise DataError(f"step {some(missing)} is missing" if missing else "it has a batch of step 0")
    if list(batches) != sorted(batches):
        findings.add(place, "its steps are not in order", "put in order")
    return [batches[step] for step in sorted(batches)]


def _note_extra(extra: set[str], place: str, findings: Findings) -> None:
    if extra:
        findings.add(place, f"it has fields that the layout does not have ({some(sorted(extra))})", _LEFT_OUT)


def read_metric(path: Path, place: str, findings: Findings, last: bool = False) -> MetricFile:
    """The trajectories of one metric: lines `{"id", "loss_trajectory": [{"step", "loss"}]}`, whatever the metric.

    Steps that occur again with the same value count once; test examples whose steps are not those that most have are
    left out. Both are noted.

    Args:
        path: the file.
        place: what findings call it.
        findings: gathers what is wrong.
        last: of several values of a step, or trajectories of a test example, take the last.

    Raises:
        DataError: there are none, or (without `last`) a step or a test example has two different values: nothing says
            which is right.
    """
    found: dict[int, tuple[list[int], list[float]]] = {}
    again: Counter[int] = Counter()
    odd: list[int] = []
    twice: list[int] = []
    differing: set[int] = set()
    extra: set[str] = set()
    unordered = 0
    for number, line in read_lines(path, place, findings):
        key: Any = line.get("id")
        points: Any = line.get("loss_trajectory")
        pairs = _pairs(points)
        if not is_count(key) or pairs is None:
            odd.append(number + 1)
            continue
        steps, values = pairs
        if sum(map(len, points)) > 2 * len(points):
            extra |= {name for point in points for name in point} - {"step", "loss"}
        if not _ascending(steps):
            once: dict[int, float] = {}
            for step, value in zip(steps, values, strict=True):
                if once.get(step, value) != value:
                    if not last:
                        raise DataError(f"test example {key} has two different values at step {step}{_TAKE_LAST}")
                    differing.add(key)
                once[step] = value
            if key not in differing:
                again.update(step for step, count in Counter(steps).items() if count > 1)
            unordered += list(once) != sorted(once)
            steps = sorted(once)
            values = [once[step] for step in steps]
        if key in found:
            if found[key] == (steps, values):
                twice.append(key)
            elif last:
                differing.add(key)
            else:
                raise DataError(f"test example {key} has two different trajectories{_TAKE_LAST}")
        found[key] = (steps, values)
        extra |= line.keys() - {"id", "loss_trajectory"}
    _note_extra(extra, place, findings)
    if odd:
        findings.add(place, f"{lines(odd)} no trajectory of a test example", _LEFT_OUT)
    if again:
        most = max(again.values())
        where = f" (in up to {most} trajectories)" if most > 1 else ""
        findings.add(place, f"step {some(sorted(again))} occurs more than once with the same value{where}", MENDED)
    if differing:
        findings.add(place, f"test example {some(sorted(differing))} has different values of the same steps", LAST)
    if twice:
        findings.add(place, f"test example {some(twice)} occurs more than once", MENDED)
    if unordered:
        findings.add(place, f"the steps of {unordered} trajectories are not in order", "put in order")
    if not found:
        raise DataError("it is empty")
    return _alike(found, place, findings)


def _pairs(points: object) -> tuple[list[int], list[float]] | None:
    """Steps and values of a trajectory; None if it is none."""
    if not isinstance(points, list) or not points:
        return None
    try:
        steps, values = [point["step"] for point in points], [point["loss"] for point in points]
    except (TypeError, KeyError):
        return None
    if not all(map(is_count, steps)) or not {type(value) for value in values} <= {int, float}:
        return None
    try:
        return steps, [float(value) for value in values]
    except OverflowError:
        return None


def _ascending(steps: list[int]) -> bool:
    return all(before < after for before, after in pairwise(steps))


def _alike(found: dict[int, tuple[list[int], list[float]]], place: str, findings: Findings) -> MetricFile:
    """The test examples that have the steps that most of them have."""
    counts = Counter(tuple(steps) for steps, _ in found.values())
    usual = max(counts, key=lambda steps: (counts[steps], len(steps), [-step for step in steps]))
    others = [key for key, (steps, _) in found.items() if tuple(steps) != usual]
    if others:
        lacks = sorted(set(usual) - set(found[others[0]][0]))
        why = f"lacks step {some(lacks)}" if lacks else "has steps that the others lack"
        findings.add(place, f"test example {some(others)} {why}", "those test examples are left out of this file")
    keys = [key for key in found if key not in set(others)]
    values = np.array([found[key][1] for key in keys], dtype=np.float64).T
    return MetricFile(keys, list(usual), values)
