"""JSON lines that may be damaged, and values that may be repeated in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from gptdynamics.dataset.checks.findings import some
from gptdynamics.errors import DataError
from gptdynamics.exchange.findings import Findings

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

LEFT_OUT = "left out"
# Ids and steps are stored as 32-bit integers.
_GREATEST = 2**31 - 1


def read_lines(
    path: Path, place: str, findings: Findings, parse: Callable[[dict[str, Any]], Value | None], kind: str
) -> Iterator[tuple[int, Value]]:
    """Number (from 0) and content of each line that can be used; the others are noted, one finding for each fault.

    Args:
        path: the file.
        place: what findings call it.
        findings: gathers what is wrong.
        parse: makes the content of a JSON object; None if it is not of the right kind.
        kind: what findings call that kind.

    Raises:
        DataError: the file cannot be read.
    """
    faults: dict[str, list[int]] = {"JSON object": [], kind: []}
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                if not line.strip():
                    continue
                try:
                    content = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError):
                    content = None
                is_object = isinstance(content, dict)
                parsed = parse(content) if is_object else None
                if parsed is None:
                    faults[kind if is_object else "JSON object"].append(number + 1)
                else:
                    yield number, parsed
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    for missing, numbers in faults.items():
        subject = f"line {numbers[0]} is" if len(numbers) == 1 else f"lines {some(numbers)} are"
        findings.add_each(place, [(numbers, f"{subject} no {missing}", LEFT_OUT)])


def merge_repeats(
    pairs: Iterable[tuple[Key, Value]], last: bool, conflict: str
) -> tuple[dict[Key, Value], list[Key], list[Key]]:
    """One value for each key.

    Args:
        pairs: keys and values, in the order of the file.
        last: of different values of a key take the last.
        conflict: what the error says of a key with different values; `{}` stands for the key.

    Returns:
        Values by key, keys that occurred again with the same value, and keys that had different values.

    Raises:
        DataError: without `last`, a key has different values.
    """
    values: dict[Key, Value] = {}
    repeated: list[Key] = []
    differing: list[Key] = []
    for key, value in pairs:
        if key in values:
            same = values[key] == value
            if not same and not last:
                raise DataError(f"{conflict.format(key)} (--last takes the last)")
            (repeated if same else differing).append(key)
        values[key] = value
    return values, repeated, differing


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value can be an id or a step."""
    return type(value) is int and 0 <= value <= _GREATEST
