"""Functions for notebooks whose keywords are the fields of a settings dataclass.

The dataclass stays the one place where an option is declared: the command line, a TOML file and these functions take
the same names, with the same defaults, checks and texts.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

from gptdynamics.errors import SettingsError
from gptdynamics.options import Option, options_of, settings_from

Settings = TypeVar("Settings")
Function = TypeVar("Function", bound=Callable[..., Any])

_CALLBACKS = {
    "on_phase, on_progress": "called with the name of each phase and the number of its parts, and after each part.",
    "on_start, on_step": "called with a config and the number of measurements to come, and with it after each.",
    "on_run, on_note": "called with the name of each run that has ended, and with a line for what is worth knowing.",
    "on_wait": "called with the reason before the Hub is asked again.",
}


def settings_of(kind: type[Settings], **given: Any) -> Settings:
    """An instance of a settings dataclass from keywords; paths may be texts, and tuples may be lists or single values.

    Raises:
        SettingsError: a name is none of its options, one that is needed is missing, or a value does not fit.
    """
    declared: Any = kind
    options = {option.name: option for option in options_of(declared)}
    for name in given:
        if name not in options:
            raise SettingsError(f"{name}: there is no such setting. There are: {', '.join(options)}")
    for name, option in options.items():
        if option.default is MISSING and name not in given:
            raise SettingsError(f"{name} is missing: {_lower(option.help)}")
    made: Settings = settings_from(kind, {name: _value(options[name], value) for name, value in given.items()})
    return made


def _value(option: Option, given: Any) -> Any:
    """The value of an option from that of a keyword."""

    def one(value: Any) -> Any:
        if option.kind is Path and isinstance(value, str | os.PathLike):
            return Path(value)
        return os.fspath(value) if option.kind is str and isinstance(value, os.PathLike) else value

    if not option.several or given is None:
        return one(given)
    if isinstance(given, list | tuple):
        return tuple(map(one, given))
    return one(given) if option.one_alone else (one(given),)


def takes_fields_of(kind: type) -> Callable[[Function], Function]:
    """Let the signature and the docstring of a function name the settings that its `**settings` are made from.

    The docstring gets an `Args:`, whose texts are those of the dataclass.

    Args:
        kind: the dataclass; its options that are no parameters of the function yet become keywords.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        own_names = {each.name for each in own}
        added = [option for option in options_of(kind) if option.name not in own_names]
        parameters = [*own, *map(_keyword, added)]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        texts = {option.name: _lower(option.help) for option in options_of(kind)}
        lines = [f"    {each.name}: {texts[each.name]}" for each in parameters if texts.get(each.name)]
        lines += [f"    {names}: {text}" for names, text in _CALLBACKS.items() if names.split(", ")[0] in own_names]
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Args:", *lines])
        return function

    return decorate


def _keyword(option: Option) -> inspect.Parameter:
    """An option as a parameter of a signature."""
    kind = "str | Path" if option.kind is Path else option.kind.__name__
    kind = f"Sequence[{kind}]" if option.several else kind
    kind = f"{kind} | None" if option.default is None else kind
    default = inspect.Parameter.empty if option.default is MISSING else option.default
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _lower(text: str) -> str:
    """A sentence of `--help` as the docstring had it."""
    return text[:1].lower() + text[1:]
