"""Converts settings of any type to values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

_DEPTH, _LONGEST = 8, 1000


def plain_value(value: Any, depth: int = 0) -> Any:
    """Convert a value to one that JSON can hold.

    Sets become sorted lists, scalars and short arrays of numpy and torch become numbers, dataclasses become objects,
    and enumeration members become their values. Everything else becomes text, including infinite numbers, long arrays
    and deep nesting.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | str):
        return value if not isinstance(value, str) else _text(value)
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth >= _DEPTH:
        return _text(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain_values({field.name: getattr(value, field.name, None) for field in fields(value)}, depth + 1)
    if isinstance(value, Mapping):
        return plain_values(value, depth + 1)
    if isinstance(value, Set):
        return sorted(
            (plain_value(element, depth + 1) for element in value),
            key=lambda element: (str(type(element)), str(element)),
        )
    if isinstance(value, list | tuple):
        return [plain_value(element, depth + 1) for element in value]
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "tolist") and math.prod(shape) <= _LONGEST:
        try:
            return plain_value(value.tolist(), depth + 1)
        except Exception:
            return _text(value)
    return _text(value)


def plain_values(values: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Convert a mapping to one that JSON can hold; keys become texts."""
    return {_text(name): plain_value(value, depth) for name, value in values.items()}


def plain_number(value: Any) -> float | None:
    """A value as a finite number, also one of numpy or torch; None if it is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "replace").decode()
