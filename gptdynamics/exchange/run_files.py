"""The files of one run in the authors' layout: its batches, and the trajectories of each metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gptdynamics.dataset.checks.findings import some
from gptdynamics.errors import DataError
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.jsonlines import LEFT_OUT, is_count, merge_repeats, read_lines

Value = TypeVar("Value", bound=Hashable)

_MERGED = "one of them is kept"
_LAST = "the last is kept"
_SORTED = "put in order"
_NEW_FIELDS = "it has fields that the layout does not have ({})"
# A file with a single greater step would otherwise make a list of all steps before it.
_MOST_STEPS = 10**7


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

    @property
    def grid(self) -> tuple[tuple[int, ...], frozenset[int]]:
        """Steps and test examples that the metric was measured at."""
        return tuple(self.step), frozenset(self.ids)


def most_frequent(values: Iterable[Value], size: Callable[[Any], Any] = len) -> Value | None:
    """The most frequent value; of several the one of the greatest `size`, and of those the first. None without any."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], size(value)), default=None)


def read_batches(path: Path, place: str, findings: Findings, last: bool = False) -> list[list[int]]:
    """The batches of a run, `[T][batch]` ids: lines `{"step", "samples_id"}`, steps from 1.

    A step that occurs again with the same batch counts once, and is noted.

    Args:
        path: the file.
        place: what findings call it.
        findings: gathers what is wrong.
        last: of several batches of a step take the last, as the authors' code does.

    Raises:
        DataError: there is none; a step is missing or (without `last`) has two different batches: the curriculum is
            unknown.
    """
    new_fields: set[str] = set()

    def parse(line: dict[str, Any]) -> tuple[int, list[int]] | None:
        step, batch = line.get("step"), line.get("samples_id")
        if not is_count(step) or not isinstance(batch, list) or not batch or not all(map(is_count, batch)):
            return None
        new_fields.update(line.keys() - {"step", "samples_id"})
        return step, batch

    rows = (row for _, row in read_lines(path, place, findings, parse, "step with the ids of its batch"))
    batches, repeated, differing = merge_repeats(rows, last, "step {} has two different batches")
    findings.add_each(place, [(new_fields, _NEW_FIELDS.format(some(sorted(new_fields))), LEFT_OUT)])
    if not batches:
        raise DataError("it is empty")
    cases = [
        (repeated, f"step {some(repeated)} occurs more than once with the same batch", _MERGED),
        (differing, f"step {some(differing)} has different batches", _LAST),
    ]
    findings.add_each(place, cases)
    greatest = max(batches)
    missing = sorted(set(range(1, greatest + 1)) - batches.keys()) if greatest < _MOST_STEPS else [1]
    if missing or 0 in batches:
        raise DataError(f"step {some(missing)} is missing" if missing else "it has a batch of step 0")
    if list(batches) != sorted(batches):
        findings.add(place, "its steps are not in order", _SORTED)
    return [batches[step] for step in sorted(batches)]


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
    repeated_steps: Counter[int] = Counter()
    differing: set[int] = set()
    unordered: list[int] = []
    new_fields: set[str] = set()

    def trajectories() -> Iterator[tuple[int, tuple[list[int], list[float]]]]:
        kind = "trajectory of a test example"
        for _, (key, steps, values, names) in read_lines(path, place, findings, _parse_trajectory, kind):
            new_fields.update(names)
            if all(before < after for before, after in pairwise(steps)):
                yield key, (steps, values)
                continue
            conflict = f"test example {key} has two different values at step {{}}"
            points, repeated, different = merge_repeats(zip(steps, values, strict=True), last, conflict)
            if different:
                differing.add(key)
            else:
                repeated_steps.update(set(repeated))
            ordered = sorted(points)
            if list(points) != ordered:
                unordered.append(key)
            yield key, (ordered, [points[step] for step in ordered])

    conflict = "test example {} has two different trajectories"
    rows, repeated, different = merge_repeats(trajectories(), last, conflict)
    differing.update(different)
    most = max(repeated_steps.values(), default=0)
    in_many = f" (in up to {most} trajectories)" if most > 1 else ""
    same_value = f"step {some(sorted(repeated_steps))} occurs more than once with the same value{in_many}"
    cases = [
        (new_fields, _NEW_FIELDS.format(some(sorted(new_fields))), LEFT_OUT),
        (repeated_steps, same_value, _MERGED),
        (differing, f"test example {some(sorted(differing))} has different values of the same steps", _LAST),
        (repeated, f"test example {some(repeated)} occurs more than once", _MERGED),
        (unordered, f"the steps of {len(unordered)} trajectories are not in order", _SORTED),
    ]
    findings.add_each(place, cases)
    # Of step lists that are equally frequent and long, the one with the lowest steps.
    usual = most_frequent(
        (tuple(steps) for steps, _ in rows.values()), lambda steps: (len(steps), [-step for step in steps])
    )
    if usual is None:
        raise DataError("it is empty")
    ids = [key for key, (steps, _) in rows.items() if tuple(steps) == usual]
    if len(ids) < len(rows):
        others = [key for key, (steps, _) in rows.items() if tuple(steps) != usual]
        missing = sorted(set(usual) - set(rows[others[0]][0]))
        why = f"lacks step {some(missing)}" if missing else "has steps that the others lack"
        findings.add(place, f"test example {some(others)} {why}", "those test examples are left out of this file")
    return MetricFile(ids, list(usual), np.array([rows[key][1] for key in ids], dtype=np.float64).T)


def _parse_trajectory(line: dict[str, Any]) -> tuple[int, list[int], list[float], set[str]] | None:
    """Test example, steps, values and fields that the layout does not have; None if it is no trajectory."""
    key, points = line.get("id"), line.get("loss_trajectory")
    if not is_count(key) or not isinstance(points, list) or not points:
        return None
    try:
        steps, numbers = [point["step"] for point in points], [point["loss"] for point in points]
        values = [float(number) for number in numbers]
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    if not all(map(is_count, steps)) or not {type(number) for number in numbers} <= {int, float}:
        return None
    names = line.keys() - {"id", "loss_trajectory"}
    if sum(map(len, points)) > 2 * len(points):
        names |= {name for point in points for name in point} - {"step", "loss"}
    return key, steps, values, names
