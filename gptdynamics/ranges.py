"""Checks the fields of settings: types as annotated, numbers within their ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gptdynamics.errors import SettingsError

# Columns of datasets hold numbers of these sizes.
INT32, INT64 = 2**31 - 1, 2**63 - 1


@dataclass(frozen=True)
class Range:
    """The finite numbers from `least` to `most`; `above` and `below` exclude the ends."""

    least: float = 0
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        lower = self.least < value if self.above else self.least <= value
        upper = value < self.most if self.below or self.most == math.inf else value <= self.most
        return lower and upper

    def __str__(self) -> str:
        lower = f"above {self.least}" if self.above else f"at least {self.least}"
        if self.most == math.inf:
            return f"{lower} and finite"
        return f"{lower} and {'below' if self.below else 'at most'} {self.most}"


COUNT = Range(1, INT32)
SEED = Range(0, INT64)
RATE = Range(0)
# More runs than anybody makes, but few enough that their names fit in memory.
RUNS = Range(1, 10**6)


def check_fields(settings: Any, ranges: Mapping[str, Range]) -> None:
    """Check every field of a dataclass's instance.

    Texts may not have NUL characters or unpaired surrogates, because file names and files cannot have them.

    Args:
        settings: the instance.
        ranges: of its numbers, by field; other numbers are finite.

    Raises:
        SettingsError: a value has a wrong type or is out of range.
    """
    hints = _hints(settings.__class__)
    for field in fields(settings):
        value, kinds = getattr(settings, field.name), _kinds(hints[field.name])
        text = _short(value)
        if value is None and NoneType in kinds:
            continue
        choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        if choices:
            if value not in choices:
                raise SettingsError(f"{field.name}={text} must be one of {', '.join(choices)}")
        elif bool in kinds:
            if not isinstance(value, bool):
                raise SettingsError(f"{field.name}={text} must be True or False")
        elif int in kinds or float in kinds:
            number = type(value) is int or (float in kinds and isinstance(value, float))
            if not number:
                raise SettingsError(f"{field.name}={text} must be a {'number' if float in kinds else 'whole number'}")
            allowed = ranges.get(field.name, Range(-math.inf, above=True))
            if value not in allowed:
                raise SettingsError(f"{field.name}={text} must be {allowed}")
        elif str in kinds and len(kinds) - (NoneType in kinds) == 1:
            if not isinstance(value, str):
                raise SettingsError(f"{field.name}={text} must be a text")
            if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
                raise SettingsError(f"{field.name}={text} must not have NUL or unpaired surrogates")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types that a field may have: for `int | None`, both."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers with thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}..."
