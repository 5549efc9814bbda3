"""Commands made from functions whose first parameter is a settings dataclass: each of its fields is an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from gptdynamics.console import say
from gptdynamics.options import Option, options_of, read_settings, settings_from
from gptdynamics.outputs import check_output
from gptdynamics.tasks.user_tasks import add_task_file

_FILES = {
    "task_file": Annotated[
        list[Path] | None,
        typer.Option("--task-file", metavar="FILE", help="A Python file with tasks of your own. May be repeated."),
    ],
    "settings_file": Annotated[
        Path | None,
        typer.Option(
            "--settings", metavar="FILE", help="A TOML file with any of these settings; options given here win."
        ),
    ],
}


class SettingsCommand(TyperCommand):
    """A command whose options need not be given on the line: whether one is missing is known with the settings file.

    Attributes:
        options: those of its settings.
    """

    options: tuple[Option, ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show which options must be given, and defaults as they are."""
        by_name = {option.name: option for option in self.options}
        for parameter in self.params:
            option = by_name.get(parameter.name or "")
            if option is not None:
                parameter.required = option.required
                if option.kind is bool and option.default is not True:
                    parameter.secondary_opts = []
                if option.line.default is None and option.default not in (None, False, ()):
                    parameter.default = None if option.required else option.default
        super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Parts of the line of usage, without hidden arguments."""
        shown = [each for each in self.params if not getattr(each, "hidden", False)]
        pieces = [self.options_metavar] if self.options_metavar else []
        return pieces + [piece for each in shown for piece in each.get_usage_pieces(ctx)]


def new_app(help: str) -> typer.Typer:
    """A command line without commands, with `--version`.

    Args:
        help: what it is for.
    """
    app = typer.Typer(help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True)
        ] = False,
    ) -> None:
        pass

    return app


def add_command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Add a function as a command.

    The fields of the dataclass that its first parameter is annotated with become arguments and options; its other
    parameters are options as `typer` takes them. `--settings FILE` reads the fields from a TOML file; what is given on
    the line wins. `--task-file FILE` makes tasks of the user's own known. The function's docstring is the help.

    Args:
        app: gets the command.
        function: is called with an instance of the dataclass, and its other parameters by name.
    """
    hints = get_type_hints(function, include_extras=True)
    first, *others = inspect.signature(function).parameters.values()
    settings = hints[first.name]
    options = options_of(settings)

    def run(ctx: typer.Context, settings_file: Path | None, task_file: list[Path] | None, **given: Any) -> None:
        for path in task_file or ():
            add_task_file(path)
        more = {each.name: given.pop(each.name) for each in others}
        values = read_settings(settings_file, settings) if settings_file else {}
        values |= _given(ctx, options, given)
        for option in options:
            if option.required and option.name not in values:
                what = f"argument '{option.name.upper()}'" if option.shown_argument else f"option '{option.flag}'"
                ctx.fail(f"Missing {what}.")
            if option.line.writes and option.name in values:
                check_output(values[option.name])
        function(settings_from(settings, values), **more)

    parameters = [_parameter("ctx", typer.Context, inspect.Parameter.empty)]
    parameters += [each for option in options for each in _parameters(option)]
    parameters += [_parameter(each.name, hints[each.name], each.default) for each in others]
    parameters += [_parameter(name, hint, None) for name, hint in _FILES.items()]
    # Typer reads the options from the signature.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    kind = type("Command", (SettingsCommand,), {"options": options})
    text = escaped(inspect.cleandoc(function.__doc__ or ""))
    app.command(function.__name__.rstrip("_").replace("_", "-"), cls=kind, help=text)(run)


def escaped(text: str) -> str:
    """Text of a help page in which brackets are brackets, not markup."""
    from rich.markup import escape

    return escape(text)


def _say_version(asked: bool) -> None:
    if asked:
        from gptdynamics import __version__

        say(f"gptdynamics {__version__}")
        raise typer.Exit


def _given(ctx: typer.Context, options: tuple[Option, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Values of the options that stand on the command line."""
    given = {name: value for name, value in given.items() if value is not None and value != []}
    found: dict[str, Any] = {}
    for option in options:
        for name in (_option_name(option), *map(_alias_name, option.line.aliases)):
            if name in given:
                found[option.name] = option.from_words(given[name])
    words = [given[_argument_name(each)] for each in options if each.line.positional and _argument_name(each) in given]
    # An argument that is given as an option leaves its place to the next one; hidden ones come last.
    places = [each for each in options if each.line.positional and each.name not in found]
    needed = [each for each in places if each.required]
    places = sorted(needed if len(words) == len(needed) else places, key=lambda each: each.line.hidden)
    if len(words) > len(places):
        ctx.fail(f"Got unexpected extra argument ({words[-1]})")
    return found | {option.name: option.from_words(word) for option, word in zip(places, words, strict=False)}


def _argument_name(option: Option) -> str:
    return f"argument_{option.name}" if option.line.hidden else option.name


def _option_name(option: Option) -> str:
    return f"option_{option.name}" if option.shown_argument else option.name


def _alias_name(alias: str) -> str:
    return f"alias_{alias}"


def _parameters(option: Option) -> list[inspect.Parameter]:
    """What an option is for typer: an argument, an option, and its hidden names."""
    line, text = option.line, escaped(option.help)
    kind = str if line.commas else option.kind
    hint: Any = (list[kind] if option.several else kind) | None  # type: ignore[valid-type]
    plain = f"<{option.kind.__name__}>..." if option.several else None
    metavar = "FILE" if line.writes else plain
    # A text is shown in brackets; where there is none, the command's help shows the default itself.
    shown = line.default or (option.default not in (None, False, ()) and not option.required)
    flags = f"{option.flag}/{option.no_flag}" if option.kind is bool else option.flag
    found = [
        (
            _option_name(option),
            typer.Option(flags, help=text, metavar=metavar, show_default=shown, hidden=option.shown_argument),
        )
    ]
    if line.positional:
        argument = typer.Argument(metavar=option.name.upper(), help=text, show_default=shown, hidden=line.hidden)
        found.insert(0, (_argument_name(option), argument))
    found += [(_alias_name(each), typer.Option(f"--{each.replace('_', '-')}", hidden=True)) for each in line.aliases]
    return [_parameter(name, Annotated[hint, info], None) for name, info in found]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
