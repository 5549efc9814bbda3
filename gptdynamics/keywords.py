"""Functions for notebooks whose keywords are the fields of a settings dataclass.

An option is declared only in the dataclass: the command line, a TOML file and these functions have the same names,
defaults, checks and texts.
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
    "on_start, on_step": "called with a config and the number of its measurements, and with the config after each.",
    "on_run, on_note": "called with the name of each finished run, and with a line for each note.",
    "on_wait": "called with the reason before the Hub is tried again.",
}


def settings_of(kind: type[Settings], **keywords: Any) -> Settings:
    """An instance of a settings dataclass from keywords; paths may be texts, and tuples may be lists or single values.

    Raises:
        SettingsError: a name is unknown, a required option is missing, or a value does not fit.
    """
    declared: Any = kind
    options = {option.name: option for option in options_of(declared)}
    for name in keywords:
        if name not in options:
            raise SettingsError(f"{name}: there is no such setting. There are: {', '.join(options)}")
    for name, option in options.items():
        if option.default is MISSING and name not in keywords:
            raise SettingsError(f"{name} is missing: {_lower(option.help)}")
    settings: Settings = settings_from(kind, {name: _value(options[name], value) for name, value in keywords.items()})
    return settings


def _value(option: Option, value: Any) -> Any:
    """The value of an option from that of a keyword."""

    def single(value: Any) -> Any:
        if option.kind is Path and isinstance(value, str | os.PathLike):
            return Path(value)
        return os.fspath(value) if option.kind is str and isinstance(value, os.PathLike) else value

    if not option.several or value is None:
        return single(value)
    if isinstance(value, list | tuple):
        return tuple(map(single, value))
    return single(value) if option.one_alone else (single(value),)


def takes_fields_of(kind: type) -> Callable[[Function], Function]:
    """A decorator that adds the options of a settings dataclass to a function's signature and docstring.

    The docstring gets a section `Args:` with the texts of the dataclass.

    Args:
        kind: the dataclass; its options become keywords, unless the function already has such parameters.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own_parameters = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        own_names = {parameter.name for parameter in own_parameters}
        added = [option for option in options_of(kind) if option.name not in own_names]
        parameters = [*own_parameters, *map(_keyword, added)]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        texts = {option.name: _lower(option.help) for option in options_of(kind)}
        lines = [
            f"    {parameter.name}: {texts[parameter.name]}" for parameter in parameters if texts.get(parameter.name)
        ]
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
    """A text of `--help` with a small first letter, as in the docstring."""
    return text[:1].lower() + text[1:]
