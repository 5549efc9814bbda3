"""The command line that repeats what was done, from the settings it was done with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def repeating_command(
    name: str,
    settings: DataclassInstance,
    arguments: Sequence[str],
    more: Mapping[str, Any] | None = None,
) -> str:
    """A command of `gptfluence` with every option that its settings were made from.

    Args:
        name: of the command.
        settings: whose fields are named like the command's options.
        arguments: names of the fields that are arguments instead of options, in their order.
        more: options that are no settings, by name.
    """
    options = {each.name: getattr(settings, each.name) for each in fields(settings)}
    given = [str(options.pop(argument)) for argument in arguments]
    words = [word for option, value in {**options, **(more or {})}.items() for word in _option(option, value)]
    # What begins like an option stands where there are none any more.
    words = [*words, "--", *given] if any(each.startswith("-") for each in given) else [*given, *words]
    return shlex.join(["gptfluence", name, *words])


def _option(name: str, value: Any) -> list[str]:
    """An option as words; none where the value is not given."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or value == ():
        return []
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list):
        return [word for each in value for word in (flag, str(each))]
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
