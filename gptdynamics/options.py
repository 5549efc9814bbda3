"""The fields of a settings dataclass as options: their names, help, values in a TOML file, words of a command line.

A command's options are declared only in a dataclass: the `Attributes:` of its docstring are their help, its annotations
are their types, and `CommandLine` in an annotation has everything else.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.parsing import parse_toml, read_bytes

_NAMES = re.compile(r"( *)(\w+(?:, \w+)*): (.+)")
_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


@dataclass(frozen=True)
class CommandLine:
    """How a field appears on a command line, beyond its name and type; for `Annotated[...]`.

    Attributes:
        positional: it is an argument. It may also be given as an option, which `--help` does not show.
        hidden: `--help` does not show the argument, only the option.
        default: text of the default in `--help`, if the value itself would not be clear.
        aliases: other names of the option, which `--help` does not show.
        commas: several values may be given in one word, separated by commas.
        writes: it names a file that will be written.
        note: text that follows that of the docstring in `--help`, if it is generated.
    """

    positional: bool = False
    hidden: bool = False
    default: str | None = None
    aliases: tuple[str, ...] = ()
    commas: bool = False
    writes: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False)
class ChangesOf:
    """A field with the given settings of another dataclass, by name; for `Annotated[...]`.

    Attributes:
        settings: the other dataclass, whose fields, except those in `omit`, become options.
        prefix: of the options' names.
        defaults, aliases: as in `CommandLine`, by field.
    """

    settings: type
    omit: tuple[str, ...] = ()
    prefix: str = ""
    defaults: Mapping[str, str] | None = None
    aliases: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: in Python and TOML.
        field: of the dataclass.
        group: the field whose mapping holds the value, see `ChangesOf`; None: the value is in the field itself.
        kind: `str`, `int`, `float`, `bool` or `Path`, of each value.
        several: whether there may be several values.
        one_alone: whether a single value is not put in a tuple.
        default: MISSING if it is required.
    """

    name: str
    field: str
    group: str | None
    kind: type
    several: bool
    one_alone: bool
    default: Any
    help: str
    line: CommandLine

    @property
    def flag(self) -> str:
        """The option's name on a command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def no_flag(self) -> str:
        """The name that switches off an option that is true or false."""
        return f"--{self.flag[5:]}" if self.name.startswith("no_") else f"--no-{self.flag[2:]}"

    @property
    def is_argument(self) -> bool:
        """Whether `--help` shows an argument, not an option."""
        return self.line.positional and not self.line.hidden

    def value_in(self, settings: Any) -> Any:
        """The value in an instance of the dataclass; None if it was not given."""
        return getattr(settings, self.field) if self.group is None else getattr(settings, self.group).get(self.field)

    def from_words(self, words: Any) -> Any:
        """The field's value from the words of a command line."""
        if not self.several:
            return words
        if self.line.commas:
            text = ",".join(words)
            try:
                words = [self.kind(word) for word in text.split(",")]
            except ValueError as error:
                raise SettingsError(f"{text!r} is not a list of ids such as 3,17") from error
        return words[0] if self.one_alone and len(words) == 1 else tuple(words)

    def from_toml(self, toml_value: Any, where: str) -> Any:
        """The field's value from that of a TOML file."""
        values = toml_value if self.several and isinstance(toml_value, list) else [toml_value]
        accepted = {float: (int, float), Path: (str,)}.get(self.kind, (self.kind,))
        if not values or any(type(value) not in accepted for value in values):
            expected = f"{_KINDS[self.kind]}, or a list of such" if self.several else _KINDS[self.kind]
            raise SettingsError(f"{where}: {self.name} = {toml_value!r} must be {expected}")
        converted = [self.kind(value) for value in values]
        return converted[0] if not self.several or (self.one_alone and len(values) == 1) else tuple(converted)

    def to_words(self, value: Any) -> list[str]:
        """The words of a command line that set a value; none for None and for a flag with its default."""
        if value is None or value == () or (self.kind is bool and value == self.default):
            return []
        if self.kind is bool:
            return [self.flag if value else self.no_flag]
        values = [str(text) for text in value] if isinstance(value, tuple) else [str(value)]
        values = [",".join(values)] if self.line.commas else values
        # With a separate word, a value that begins with a dash would be read as another option.
        words = [[f"{self.flag}={text}"] if text.startswith("-") else [self.flag, text] for text in values]
        return [word for text in words for word in text]


@cache
def options_of(settings: type) -> tuple[Option, ...]:
    """The options that a dataclass of settings declares, in its order."""
    hints, texts = get_type_hints(settings, include_extras=True), _documented(settings)
    options: list[Option] = []
    for field in fields(settings):
        hint, line = hints[field.name], CommandLine()
        if get_origin(hint) is Annotated:
            hint, line = get_args(hint)
        if isinstance(line, ChangesOf):
            for option in options_of(line.settings):
                default_text = None if option.default in (None, MISSING) else str(option.default)
                option_line = CommandLine(
                    default=(line.defaults or {}).get(option.field, default_text),
                    aliases=(line.aliases or {}).get(option.field, ()),
                )
                name = f"{line.prefix}{option.field}"
                if option.field not in line.omit:
                    options.append(replace(option, name=name, group=field.name, default=None, line=option_line))
            continue
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds = tuple(kind for kind in kinds if kind is not NoneType)
        several = next((get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple), None)
        kind = several or (str if get_origin(kinds[0]) is Literal else kinds[0])
        default, help = field.default, f"{texts.get(field.name, '')} {line.note}".strip()
        one_alone = several is not None and len(kinds) > 1
        options.append(Option(field.name, field.name, None, kind, several is not None, one_alone, default, help, line))
    return tuple(options)


def settings_from(settings: type, values: Mapping[str, Any]) -> Any:
    """An instance of a dataclass from the values of its options, by name."""
    fields_given: dict[str, Any] = {}
    for option in options_of(settings):
        if option.name in values:
            target = fields_given if option.group is None else fields_given.setdefault(option.group, {})
            target[option.field] = values[option.name]
    return settings(**fields_given)


def command_line(program: str, command: str, settings: Any) -> str:
    """The command line of a program with these settings, quoted for a shell."""
    from gptdynamics.tasks.user_tasks import task_files

    arguments, words = [], []
    for option in options_of(settings.__class__):
        value = option.value_in(settings)
        if option.is_argument:
            arguments += [
                str(argument) for argument in (value if isinstance(value, tuple) else (value,)) if argument is not None
            ]
        else:
            words += option.to_words(value)
    words += [word for path in task_files() for word in ("--task-file", path)]
    # Arguments that begin with a dash come after `--`.
    dashes = any(argument.startswith("-") for argument in arguments)
    return shlex.join([program, command, *([*words, "--", *arguments] if dashes else [*arguments, *words])])


def read_settings(path: Path, settings: type) -> dict[str, Any]:
    """Values of options, by name, from a TOML file with the same names.

    Raises DataError if it cannot be read, SettingsError if a name or the type of a value is wrong.
    """
    options = {option.name: option for option in options_of(settings)}
    try:
        content = parse_toml(read_bytes(path), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Name a TOML file with settings") from error
    for name in content:
        if name not in options:
            raise SettingsError(f"{path}: there is no setting {name!r}. There are: {', '.join(options)}")
    return {name: options[name].from_toml(value, str(path)) for name, value in content.items()}


def _documented(settings: type) -> dict[str, str]:
    """The texts of the `Attributes:` of a dataclass and its bases, by name, with a capital first letter."""
    texts: dict[str, str] = {}
    for kind in reversed(settings.__mro__[:-1]):
        section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        names: list[str] = []
        for line in section.splitlines():
            match = _NAMES.fullmatch(line)
            if match and len(match[1]) == 4:
                names = match[2].split(", ")
                texts |= dict.fromkeys(names, match[3][0].upper() + match[3][1:])
            else:
                texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts
