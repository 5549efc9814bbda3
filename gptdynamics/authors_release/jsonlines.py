"""JSON lines that may be damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from gptdynamics.authors_release.findings import Findings
from gptdynamics.errors import DataError
from gptdynamics.parsing import parse_object, replace_surrogates

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
    cut = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                if not line.strip():
                    continue
                try:
                    content, replaced = replace_surrogates(parse_object(line, f"{place}:{number + 1}"))
                except DataError:
                    bad.append(number + 1)
                else:
                    cut += bool(replaced)
                    yield number, content
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if cut:
        rows = "1 line has" if cut == 1 else f"{cut} lines have"
        findings.add(place, f"{rows} half of a surrogate pair", "U+FFFD was put in its place")
    if bad:
        findings.add(place, f"{lines(bad)} no JSON object", "left out")


def lines(numbers: list[int]) -> str:
    """`line 3 is`, `lines 3, 5 and 4 more are`."""
    shown = ", ".join(map(str, numbers[:3])) + (f" and {len(numbers) - 3} more" if len(numbers) > 3 else "")
    return f"line {shown} is" if len(numbers) == 1 else f"lines {shown} are"


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value can be an id or a step."""
    return type(value) is int and 0 <= value <= _MOST
