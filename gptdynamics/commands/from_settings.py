"""Makes commands from functions whose first parameter is a settings dataclass: each of its fields is an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from gptdynamics.console import print_beside_json, say, show_details
from gptdynamics.options import Option, options_of, read_settings, settings_from
from gptdynamics.outputs import check_output, is_standard_output, write_output_json

# Writes results as JSON if `--json FILE` is given.
WriteJson = Callable[..., None]
_ARGUMENT = "argument_"


class SettingsCommand(TyperCommand):
    """A command whose options may also come from a settings file; `options` are those of its settings."""

    options: tuple[Option, ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show which options are required, plain defaults, and each option once."""
        options = {option.name: option for option in self.options}
        for parameter in self.params:
            option = options.get((parameter.name or "").removeprefix(_ARGUMENT))
            if option is not None:
                parameter.required = option.default is MISSING
                parameter.opts = parameter.opts[:1]
                parameter.secondary_opts = parameter.secondary_opts if option.default is True else []
                if option.line.default is None and _has_default(option):
                    parameter.default = option.default
        super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Parts of the usage line, without hidden arguments."""
        visible = [parameter for parameter in self.params if not getattr(parameter, "hidden", False)]
        return ["[OPTIONS]", *[piece for parameter in visible for piece in parameter.get_usage_pieces(ctx)]]


def new_app(help: str) -> typer.Typer:
    """A command line without commands, with `--version`; `help` is its description."""
    app = typer.Typer(help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    option = typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True)

    def options(version: bool = False) -> None:
        pass

    options.__annotations__["version"] = Annotated[bool, option]
    app.callback()(options)
    return app


def add_command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Add a function as a command.

    The fields of the dataclass that annotates its first parameter become arguments and options. `--settings` reads them
    from a TOML file, `--task-file` adds the user's tasks, `--verbose` shows details. The function's docstring is the
    help; the text after `JSON:` in it is that of `--json`.

    Args:
        app: the command line to add to.
        function: called with an instance of the dataclass and, if it has these parameters, with `write_json`, a
            function that writes results if `--json` is given, and `dry_run`, whether only to report what it would do.
    """
    from rich.markup import escape

    first, *other_parameters = inspect.signature(function).parameters
    settings = get_type_hints(function)[first]
    options = options_of(settings)
    text, _, figures = inspect.cleandoc(function.__doc__ or "").partition("\n\nJSON: ")

    def run(ctx: typer.Context, json: Path | None = None, **arguments: Any) -> None:
        show_details(arguments["verbose"])
        keywords = {"dry_run": arguments["dry_run"]} if "dry_run" in other_parameters else {}
        if "write_json" in other_parameters:
            keywords["write_json"] = _json_writer(json)
        if arguments["task_file"]:
            from gptdynamics.tasks.user_tasks import add_task_file

            for path in arguments["task_file"]:
                add_task_file(path)
        values = read_settings(arguments["settings"], settings) if arguments["settings"] else {}
        values |= _given_values(ctx, options, arguments)
        for option in options:
            if option.default is MISSING and option.name not in values:
                missing_name = f"argument '{option.name.upper()}'" if option.is_argument else f"option '{option.flag}'"
                ctx.fail(f"Missing {missing_name}.")
            if option.line.writes and option.name in values:
                check_output(values[option.name])
        # Checks of the words alone come before importing the libraries that instances need.
        getattr(settings, "check_options", lambda values: None)(values)
        function(settings_from(settings, values), **keywords)

    parameters = [_parameter("ctx", typer.Context, inspect.Parameter.empty)]
    parameters += [parameter for option in options for parameter in _parameters(option, escape(option.help))]
    if "dry_run" in other_parameters:
        parameters.append(_parameter("dry_run", bool, False, "--dry-run", help="Print what would be done, and stop."))
    parameters.append(_parameter("verbose", bool, False, "--verbose", "-v", help="Also print details."))
    files = {
        "json": (Path, f"Also write this as JSON (- is standard output): {escape(' '.join(figures.split()))}"),
        "task_file": (list[Path], "A Python or TOML file with tasks of your own. May be repeated."),
        "settings": (Path, "A TOML file with any of these settings; options on the command line take precedence."),
    }
    for name, (kind, help) in files.items():
        if name != "json" or "write_json" in other_parameters:
            flag = f"--{name.replace('_', '-')}"
            parameters.append(_parameter(name, kind | None, None, flag, metavar="FILE", help=help))
    # Typer reads the options from the signature.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command = type("Command", (SettingsCommand,), {"options": options})
    app.command(function.__name__.rstrip("_").replace("_", "-"), cls=command, help=escape(text))(run)


def _say_version(requested: bool) -> None:
    if requested:
        from gptdynamics import __version__

        say(f"gptdynamics {__version__}")
        raise typer.Exit


def _json_writer(path: Path | None) -> WriteJson:
    print_beside_json(is_standard_output(path))
    if path is None:
        return lambda figures, indent=1: None
    check_output(path)
    return partial(write_output_json, path)


def _given_values(ctx: typer.Context, options: tuple[Option, ...], arguments: dict[str, Any]) -> dict[str, Any]:
    """Values of the options that are given on the command line."""
    arguments = {name: value for name, value in arguments.items() if value is not None and value != []}
    values = {option.name: option.from_words(arguments[option.name]) for option in options if option.name in arguments}
    words = [arguments[f"{_ARGUMENT}{option.name}"] for option in options if f"{_ARGUMENT}{option.name}" in arguments]
    # If an argument is given as an option, the next argument takes its position; hidden arguments come last.
    places = [option for option in options if option.line.positional and option.name not in values]
    required = [option for option in places if option.default is MISSING]
    places = sorted(required if len(words) == len(required) else places, key=lambda option: option.line.hidden)
    if len(words) > len(places):
        ctx.fail(f"Got unexpected extra argument ({words[-1]})")
    return values | {option.name: option.from_words(word) for option, word in zip(places, words, strict=False)}


def _has_default(option: Option) -> bool:
    return option.default is not MISSING and option.default not in (None, False, ())


def _parameters(option: Option, text: str) -> list[inspect.Parameter]:
    """The parameters for typer that an option becomes: an argument if it is positional, and an option."""
    line = option.line
    kind = str if line.commas else option.kind
    hint: Any = (list[kind] if option.several else kind) | None  # type: ignore[valid-type]
    several_metavar = f"<{option.kind.__name__}>..." if option.several else None
    flags = [option.flag if option.kind is not bool else f"{option.flag}/{option.no_flag}"]
    flags += [f"--{alias}" for alias in line.aliases]
    # Typer prints a text in brackets; without one, `format_help` sets the default itself.
    details: Any = {"help": text, "show_default": line.default or _has_default(option)}
    parameters = []
    if line.positional:
        argument = typer.Argument(metavar=option.name.upper(), hidden=line.hidden, **details)
        parameters.append(_parameter(f"{_ARGUMENT}{option.name}", Annotated[hint, argument], None))
    metavar = "FILE" if line.writes else several_metavar
    details |= {"metavar": metavar, "hidden": option.is_argument}
    return [*parameters, _parameter(option.name, hint, None, *flags, **details)]


def _parameter(name: str, hint: Any, default: Any, *flags: str, **details: Any) -> inspect.Parameter:
    if flags:
        hint = Annotated[hint, typer.Option(*flags, **details)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
