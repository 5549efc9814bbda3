"""JSON lines that may be damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from gptdynamics.errors import DataError
from gptdynamics.exchange.findings import Findings

# Ids and steps are stored as 32-bit integers.
_MOST = 2**31 - 1


def read_lines(path: Path, place: str, findings: Findings) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 0) and content of each line that is a JSON object; the others are noted, in one finding.

    Args:
        path: the file.
        place: what findings call it.
        findings: gathers them.

    Raises:
        DataError: it cannot be read.
    """
    bad: list[int] = []
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                if not line.strip():
                    continue
                try:
                    content = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError):
                    content = None
                if isinstance(content, dict):
                    yield number, content
                else:
                    bad.append(number + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if bad:
        findings.add(place, f"{lines(bad)} no JSON object", "left out")


def lines(numbers: list[int]) -> str:
    """`line 3 is`, `lines 3, 5 and 4 more are`."""
    shown = ", ".join(map(str, numbers[:3])) + (f" and {len(numbers) - 3} more" if len(numbers) > 3 else "")
    return f"line {shown} is" if len(numbers) == 1 else f"lines {shown} are"


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value can be an id or a step."""
    return type(value) is int and 0 <= value <= _MOST
