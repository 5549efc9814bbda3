"""Reads the files of a release in the authors' layout: JSON lines that may be damaged, repeated or out of order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from gptdynamics.dataset.checks.findings import some
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.exchange.findings import Findings
from gptdynamics.parsing import parse_object, replace_surrogates
from gptdynamics.ranges import INT32

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

UNKNOWN = "unknown"
# Limits the memory for a list of missing steps, which a single wrong step would fill.
_MOST_STEPS = 10**7
_LEFT_OUT, _MERGED, _LAST, _SORTED = "left out", "one of them is kept", "the last is kept", "sorted"
_NEW_FIELDS = "it has fields that the layout does not have"


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a release.

    Attributes:
        path: of the file.
        place: its path relative to the release, for findings.
        findings: collects its problems.
        last: use the last of several values for one key, as the authors' code does with batches.
    """

    path: Path
    place: str
    findings: Findings
    last: bool = False

    def lines(self, parse: Callable[[dict[str, Any]], Value | None], kind: str) -> Iterator[tuple[int, Value]]:
        """Number (from 0) and content of each usable line; the other lines become one finding for each fault.

        `parse` reads a JSON object, and returns None if it is not of this `kind`, which findings name.
        """
        faults: dict[str, list[int]] = {"JSON object": [], kind: []}
        lines_with_surrogates = 0
        try:
            with self.path.open("rb") as stream:
                for number, line in enumerate(stream):
                    if not line.strip():
                        continue
                    try:
                        content = parse_object(line, f"{self.place}:{number + 1}")
                    except DataError:
                        faults["JSON object"].append(number + 1)
                        continue
                    # UTF-8 has no surrogates, so they can only come from escapes.
                    content, replaced = replace_surrogates(content) if b"\\u" in line else (content, 0)
                    lines_with_surrogates += bool(replaced)
                    parsed = parse(content)
                    if parsed is None:
                        faults[kind].append(number + 1)
                    else:
                        yield number, parsed
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        if lines_with_surrogates:
            subject = "1 line has" if lines_with_surrogates == 1 else f"{lines_with_surrogates} lines have"
            self.findings.add(self.place, f"{subject} an unpaired surrogate", "it is replaced by U+FFFD")
        for expected, numbers in faults.items():
            subject = f"line {some(numbers)} is" if len(numbers) == 1 else f"lines {some(numbers)} are"
            self.findings.add_each(self.place, (numbers, f"{subject} no {expected}", _LEFT_OUT))

    def merge(self, pairs: Iterable[tuple[Key, Value]], conflict: str) -> tuple[dict[Key, Value], list[Key], list[Key]]:
        """One value for each key, the keys that repeat with the same value, and those with different values.

        Raises DataError if a key has different values and `last` is not set; its message is `conflict`, with the key
        for `{}`.
        """
        values: dict[Key, Value] = {}
        repeated: tuple[list[Key], list[Key]] = ([], [])
        for key, value in pairs:
            if key in values:
                conflicting = values[key] != value
                if conflicting and not self.last:
                    raise DataError(f"{conflict.format(key)} (--last uses the last)")
                repeated[conflicting].append(key)
            values[key] = value
        return values, *repeated


@dataclass(frozen=True)
class MetricFile:
    """Trajectories of one metric: M test examples in the file's order, S ascending steps, values `[M, S]` float64."""

    ids: list[int]
    step: list[int]
    values: np.ndarray

    @property
    def grid(self) -> tuple[tuple[int, ...], frozenset[int]]:
        """Steps and test examples of the metric."""
        return tuple(self.step), frozenset(self.ids)


def most_frequent(values: Iterable[Key], size: Callable[[Any], Any] = len) -> Key | None:
    """The most frequent value; ties go to the greatest `size`, then to the first. None if there are no values."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], size(value)), default=None)


def read_examples(file: ReleaseFile, task: str, part: str, examples: dict[int, Example]) -> None:
    """Add the examples of a file, lines `{"id", "input"}`, to `examples`; `part` is `pool` or `test`.

    The first of repeated ids counts. The target is left empty, because the file does not say where a prompt ends.
    """

    def parse(line: dict[str, Any]) -> tuple[int, str, dict[str, Any]] | None:
        key, text = line.pop("id", None), line.pop("input", None)
        return (key, text, line) if _is_count(key) and isinstance(text, str) and text else None

    source = {"dataset": "the paper authors' release", "split": "train" if part == "pool" else "eval"}
    source |= {"file": file.place, "licence": UNKNOWN}
    repeated: list[int] = []
    before, rows = len(file.findings), 0
    for number, (key, text, extra) in file.lines(parse, "example with an id and an input"):
        rows += 1
        if key in examples:
            repeated.append(key)
            continue
        fields = {"fields": json.dumps(extra, sort_keys=True)} if extra else {}
        examples[key] = Example(key, text, target="", task=task, source=source | {"row": str(number)} | fields)
    file.findings.add_each(
        file.place, (repeated, f"example {some(repeated)} occurs more than once", "the first is kept")
    )
    if not rows and len(file.findings) == before:
        file.findings.add(file.place, "it is empty", "not read")


def read_batches(file: ReleaseFile) -> list[list[int]]:
    """The batches of a run, `[T][batch]` ids: lines `{"step", "samples_id"}`, steps from 1.

    Raises DataError if there is none, or a step is missing or (without `file.last`) has two different batches.
    """
    new_fields: set[str] = set()

    def parse(line: dict[str, Any]) -> tuple[int, list[int]] | None:
        step, batch = line.get("step"), line.get("samples_id")
        if not _is_count(step) or not isinstance(batch, list) or not batch or not all(map(_is_count, batch)):
            return None
        new_fields.update(line.keys() - {"step", "samples_id"})
        return step, batch

    rows = (row for _, row in file.lines(parse, "step with the ids of its batch"))
    batches, repeated, differing = file.merge(rows, "step {} has two different batches")
    file.findings.add_each(
        file.place,
        (new_fields, f"{_NEW_FIELDS} ({some(sorted(new_fields))})", _LEFT_OUT),
        (repeated, f"step {some(repeated)} occurs more than once with the same batch", _MERGED),
        (differing, f"step {some(differing)} has different batches", _LAST),
    )
    if not batches:
        raise DataError("it is empty")
    greatest = max(batches)
    missing = sorted(set(range(1, greatest + 1)) - batches.keys()) if greatest < _MOST_STEPS else [1]
    if missing or 0 in batches:
        raise DataError(f"step {some(missing)} is missing" if missing else "it has a batch of step 0")
    if list(batches) != sorted(batches):
        file.findings.add(file.place, "its steps are not in order", _SORTED)
    return [batches[step] for step in sorted(batches)]


def read_metric(file: ReleaseFile) -> MetricFile:
    """The trajectories of one metric: lines `{"id", "loss_trajectory": [{"step", "loss"}]}` for every metric.

    Repeated steps with the same value count once. Test examples are left out if their steps are not the most frequent
    ones. Raises DataError if there are none, or (without `file.last`) a step or test example has two different values.
    """
    repeated_steps: Counter[int] = Counter()
    differing: set[int] = set()
    unordered: list[int] = []
    new_fields: set[str] = set()

    def trajectories() -> Iterator[tuple[int, tuple[list[int], list[float]]]]:
        for _, (key, steps, values, names) in file.lines(_parse_trajectory, "trajectory of a test example"):
            new_fields.update(names)
            if all(before < after for before, after in pairwise(steps)):
                yield key, (steps, values)
                continue
            conflict = f"test example {key} has two different values at step {{}}"
            points, same_value, other_value = file.merge(zip(steps, values, strict=True), conflict)
            if other_value:
                differing.add(key)
            else:
                repeated_steps.update(set(same_value))
            ordered = sorted(points)
            if list(points) != ordered:
                unordered.append(key)
            yield key, (ordered, [points[step] for step in ordered])

    rows, repeated, other_value = file.merge(trajectories(), "test example {} has two different trajectories")
    differing.update(other_value)
    largest_count = max(repeated_steps.values(), default=0)
    in_many = f" (in up to {largest_count} trajectories)" if largest_count > 1 else ""
    same_steps = f"step {some(sorted(repeated_steps))} occurs more than once with the same value{in_many}"
    file.findings.add_each(
        file.place,
        (new_fields, f"{_NEW_FIELDS} ({some(sorted(new_fields))})", _LEFT_OUT),
        (repeated_steps, same_steps, _MERGED),
        (differing, f"test example {some(sorted(differing))} has different values of the same steps", _LAST),
        (repeated, f"test example {some(repeated)} occurs more than once", _MERGED),
        (unordered, f"the steps of {len(unordered)} trajectories are not in order", _SORTED),
    )
    # If several lists of steps are equally frequent and long, the one with the lowest steps is used.
    common = most_frequent(
        (tuple(steps) for steps, _ in rows.values()), lambda steps: (len(steps), [-step for step in steps])
    )
    if common is None:
        raise DataError("it is empty")
    ids = [key for key, (steps, _) in rows.items() if tuple(steps) == common]
    differing_ids = [key for key, (steps, _) in rows.items() if tuple(steps) != common]
    missing = sorted(set(common) - set(rows[differing_ids[0]][0])) if differing_ids else []
    reason = f"lacks step {some(missing)}" if missing else "has steps that the others lack"
    action = "those test examples are left out of this file"
    file.findings.add_each(file.place, (differing_ids, f"test example {some(differing_ids)} {reason}", action))
    return MetricFile(ids, list(common), np.array([rows[key][1] for key in ids], dtype=np.float64))


def _parse_trajectory(line: dict[str, Any]) -> tuple[int, list[int], list[float], set[str]] | None:
    """Test example, steps, values and fields that the layout does not have; None if it is not a trajectory."""
    key, points = line.get("id"), line.get("loss_trajectory")
    if not _is_count(key) or not isinstance(points, list) or not points:
        return None
    try:
        steps, numbers = [point["step"] for point in points], [point["loss"] for point in points]
        values = [float(number) for number in numbers]
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    if not all(map(_is_count, steps)) or not {type(number) for number in numbers} <= {int, float}:
        return None
    names = line.keys() - {"id", "loss_trajectory"}
    if sum(map(len, points)) > 2 * len(points):
        names |= {name for point in points for name in point} - {"step", "loss"}
    return key, steps, values, names


def _is_count(value: object) -> TypeGuard[int]:
    """Whether a value can be an id or a step, which are stored as 32-bit integers."""
    return type(value) is int and 0 <= value <= INT32
