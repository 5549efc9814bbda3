"""The fields of a settings dataclass as options: their names, help, values in a TOML file, words of a command line.

A dataclass is the one place where a command's options are declared. The `Attributes:` of its docstring are their help,
its annotations their types, and `CommandLine` in an annotation says what neither of them does.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.parsing import parse_toml, read_bytes

_NAMES = re.compile(r"( *)(\w+(?:, \w+)*): (.+)")
_PLURAL = {str: "texts", int: "whole numbers", float: "numbers", Path: "paths"}
_SINGULAR = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


@dataclass(frozen=True)
class CommandLine:
    """How a field is given on a command line, where its name and type do not say it; for `Annotated[...]`.

    Attributes:
        positional: it is an argument. It may be given as an option, too, which `--help` does not show.
        hidden: `--help` does not show the argument, only the option.
        default: what `--help` names as the default, where the default stands for something else.
        aliases: other names of the option, which `--help` does not show.
        commas: several values may be given in one word, with commas between them.
        writes: it names a file that will be written.
        note: what `--help` says after the docstring's text, where that is made of a list.
    """

    positional: bool = False
    hidden: bool = False
    default: str | None = None
    aliases: tuple[str, ...] = ()
    commas: bool = False
    writes: bool = False
    note: str = ""


@dataclass(frozen=True)
class ChangesOf:
    """A field that holds those settings of another dataclass that were given, by name; for `Annotated[...]`.

    Attributes:
        settings: the other dataclass, whose fields become options.
        omit: fields that do not.
        prefix: of the options' names.
        defaults: as `CommandLine.default`, by field.
    """

    settings: type
    omit: tuple[str, ...] = ()
    prefix: str = ""
    defaults: Mapping[str, str] | None = None

    def __hash__(self) -> int:
        return hash((self.settings, self.omit, self.prefix))


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: as in Python and TOML.
        kind: `str`, `int`, `float`, `bool` or `Path`, of each value.
        several: whether there may be several values.
        one_alone: whether a single one of them stands alone instead of in a tuple.
        choices: the values of a `Literal`.
        default: MISSING if it must be given.
        help: a text.
        line: what its annotation says of the command line.
        group: the field that it is a part of, see `ChangesOf`.
        field: its name in the dataclass.
    """

    name: str
    kind: type
    several: bool
    one_alone: bool
    choices: tuple[str, ...]
    default: Any
    help: str
    line: CommandLine
    group: str | None
    field: str

    @property
    def flag(self) -> str:
        """The option's name on a command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def no_flag(self) -> str:
        """What switches it off, if it is true or false."""
        return f"--{self.name[3:].replace('_', '-')}" if self.name.startswith("no_") else f"--no-{self.flag[2:]}"

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def shown_argument(self) -> bool:
        """Whether it is an argument for `--help`."""
        return self.line.positional and not self.line.hidden

    def from_words(self, given: list[str] | Any) -> Any:
        """The field's value from those of a command line.

        Raises:
            SettingsError: a part of a list with commas is not of the option's type.
        """
        if not self.several:
            return given
        if self.line.commas:
            words = ",".join(given).split(",")
            try:
                given = [self.kind(each) for each in words]
            except ValueError as error:
                raise SettingsError(f"{','.join(words)!r} is not a list of ids such as 3,17") from error
        return given[0] if self.one_alone and len(given) == 1 else tuple(given)

    def from_toml(self, given: Any, where: str) -> Any:
        """The field's value from that of a TOML file.

        Raises:
            SettingsError: it is of another type.
        """
        values = given if self.several and isinstance(given, list) else [given]
        accepted = {float: (int, float), Path: (str,)}.get(self.kind, (self.kind,))
        if not all(type(value) in accepted for value in values) or (self.several and given == []):
            wanted = f"a list of {_PLURAL[self.kind]}" if self.several else _SINGULAR[self.kind]
            raise SettingsError(f"{where}: {self.name} = {given!r} must be {wanted}")
        converted = [self.kind(value) for value in values]
        return converted[0] if not self.several or (self.one_alone and len(values) == 1) else tuple(converted)

    def to_words(self, value: Any) -> list[str]:
        """The words of a command line that give it a value; none where there is none, or a flag is as by default."""
        if value is None or value == () or (self.kind is bool and value == self.default):
            return []
        if self.kind is bool:
            return [self.flag if value else self.no_flag]
        values = [str(each) for each in value] if isinstance(value, tuple | list) else [str(value)]
        values = [",".join(values)] if self.line.commas else values
        # What begins with a dash would be taken for another option.
        return [word for each in values for word in ([f"{self.flag}={each}"] if each[:1] == "-" else [self.flag, each])]


@cache
def options_of(settings: type) -> tuple[Option, ...]:
    """The options that a dataclass of settings declares, in its order."""
    hints, texts = get_type_hints(settings, include_extras=True), _documented(settings)
    found: list[Option] = []
    for field in fields(settings):
        hint, line = hints[field.name], None
        if get_origin(hint) is Annotated:
            hint, line = get_args(hint)
        if isinstance(line, ChangesOf):
            found += _changes(field.name, line)
        else:
            found.append(_option(field, hint, texts.get(field.name, ""), line or CommandLine()))
    return tuple(found)


def settings_from(settings: type, values: Mapping[str, Any]) -> Any:
    """An instance from the values of its options, by name.

    Raises:
        GPTDynamicsError: what the dataclass itself raises.
    """
    given: dict[str, Any] = {}
    for option in options_of(settings):
        if option.name in values:
            place = given if option.group is None else given.setdefault(option.group, {})
            place[option.field] = values[option.name]
    return settings(**given)


def values_of(settings: Any) -> dict[str, Any]:
    """The values of an instance's options, by name."""
    found = {}
    for option in options_of(settings.__class__):
        if option.group is None:
            found[option.name] = getattr(settings, option.field)
        elif option.field in getattr(settings, option.group):
            found[option.name] = getattr(settings, option.group)[option.field]
    return found


def command_line(program: str, command: str, settings: Any) -> str:
    """The command that repeats what was done with these settings, with every option, for a shell.

    Args:
        program: `gptdynamics` or `gptfluence`.
        command: its command.
        settings: an instance of the command's dataclass.
    """
    from gptdynamics.tasks.user_tasks import task_files

    values = values_of(settings)
    arguments, words = [], []
    for option in options_of(settings.__class__):
        if option.shown_argument:
            value = values[option.name]
            arguments += [str(each) for each in (value if isinstance(value, tuple) else (value,)) if each is not None]
        else:
            words += option.to_words(values.get(option.name))
    words += [word for path in task_files() for word in ("--task-file", path)]
    # What begins like an option stands where there are none any more.
    dashes = any(each.startswith("-") for each in arguments)
    return shlex.join([program, command, *([*words, "--", *arguments] if dashes else [*arguments, *words])])


def read_settings(path: Path, settings: type) -> dict[str, Any]:
    """Values of options from a TOML file whose names are those of the dataclass's fields.

    Raises:
        DataError: it cannot be read, or is not TOML.
        SettingsError: a name is none of a setting, or a value is of another type; the message names both.
    """
    known = {option.name: option for option in options_of(settings)}
    try:
        content = parse_toml(read_bytes(path), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Name a TOML file with settings") from error
    for name in content:
        if name not in known:
            raise SettingsError(f"{path}: there is no setting {name!r} here. There are: {', '.join(known)}")
    return {name: known[name].from_toml(value, str(path)) for name, value in content.items()}


def _option(field: Field, hint: Any, help: str, line: CommandLine) -> Option:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    several = [kind for kind in kinds if get_origin(kind) is tuple]
    choices = tuple(each for kind in kinds if get_origin(kind) is Literal for each in get_args(kind))
    kind = get_args(several[0])[0] if several else str if choices else kinds[0]
    default = field.default if field.default_factory is MISSING else field.default_factory()
    one_alone = bool(several) and len(kinds) > 1
    help = f"{help} {line.note}".strip()
    return Option(field.name, kind, bool(several), one_alone, choices, default, help, line, None, field.name)


def _changes(group: str, changes: ChangesOf) -> list[Option]:
    found = []
    for option in options_of(changes.settings):
        if option.field not in changes.omit:
            usual = None if option.default in (None, MISSING) else str(option.default)
            line = CommandLine(default=(changes.defaults or {}).get(option.field, usual))
            name = f"{changes.prefix}{option.field}"
            found.append(
                Option(
                    name, option.kind, option.several, option.one_alone, option.choices, None, option.help, line,
                    group, option.field,
                )
            )  # fmt: skip
    return found


def _documented(settings: type) -> dict[str, str]:
    """The texts of the `Attributes:` of a dataclass and its bases, by name; the first letter as in a sentence."""
    found: dict[str, str] = {}
    for kind in reversed(settings.__mro__[:-1]):
        _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
        names: list[str] = []
        indent = len(section) - len(section.lstrip(" "))
        for line in section.splitlines():
            match = _NAMES.fullmatch(line)
            if match and len(match[1]) == indent:
                names = match[2].split(", ")
                found |= dict.fromkeys(names, match[3][0].upper() + match[3][1:])
            elif line.strip():
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
            else:
                break
    return found
