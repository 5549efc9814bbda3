"""Commands made from functions whose first parameter is a settings dataclass: each of its fields is an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from gptdynamics.console import print_beside_json, say
from gptdynamics.options import Option, options_of, read_settings, settings_from
from gptdynamics.outputs import check_output, is_standard_output, write_output_json
from gptdynamics.tasks.user_tasks import add_task_file

# Writes figures as JSON where `--json FILE` asks for them.
WriteJson = Callable[..., None]


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
                parameter.opts = parameter.opts[:1]
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

    The fields of the dataclass that its first parameter is annotated with become arguments and options. `--settings`
    reads them from a TOML file, too, `--task-file` makes tasks of the user's own known. The function's docstring is the
    help; what stands behind `JSON:` in it is that of `--json`.

    Args:
        app: gets the command.
        function: is called with an instance of the dataclass; as `write_json`, if it has such a parameter, with a
            function that writes figures where `--json` asks for them; as `dry_run` with whether only to say what would
            be done.
    """
    first, *others = inspect.signature(function).parameters
    settings = get_type_hints(function)[first]
    options = options_of(settings)
    text, _, figures = inspect.cleandoc(function.__doc__ or "").partition("\n\nJSON: ")

    def run(ctx: typer.Context, **given: Any) -> None:
        more = {}
        if "dry_run" in others:
            more["dry_run"] = given["dry_run"]
        if "write_json" in others:
            more["write_json"] = _json_writer(given["json_file"])
        for path in given["task_file"] or ():
            add_task_file(path)
        values = read_settings(given["settings_file"], settings) if given["settings_file"] else {}
        values |= _given(ctx, options, given)
        for option in options:
            if option.required and option.name not in values:
                what = f"argument '{option.name.upper()}'" if option.shown_argument else f"option '{option.flag}'"
                ctx.fail(f"Missing {what}.")
            if option.line.writes and option.name in values:
                check_output(values[option.name])
        function(settings_from(settings, values), **more)

    def file(flag: str, help: str) -> Any:
        return typer.Option(flag, metavar="FILE", help=help)

    parameters = [_parameter("ctx", typer.Context, inspect.Parameter.empty)]
    parameters += [each for option in options for each in _parameters(option)]
    if "dry_run" in others:
        dry = typer.Option("--dry-run", help="Say what would be done, and stop.")
        parameters.append(_parameter("dry_run", Annotated[bool, dry], False))
    if "write_json" in others:
        figures = escaped(f"Also write this as JSON (- is standard output): {' '.join(figures.split())}")
        parameters.append(_parameter("json_file", Annotated[Path | None, file("--json", figures)], None))
    own = file("--task-file", "A Python file with tasks of your own. May be repeated.")
    parameters.append(_parameter("task_file", Annotated[list[Path] | None, own], None))
    toml = file("--settings", "A TOML file with any of these settings; options given here win.")
    parameters.append(_parameter("settings_file", Annotated[Path | None, toml], None))
    # Typer reads the options from the signature.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    kind = type("Command", (SettingsCommand,), {"options": options})
    app.command(function.__name__.rstrip("_").replace("_", "-"), cls=kind, help=escaped(text))(run)


def escaped(text: str) -> str:
    """Text of a help page in which brackets are brackets, not markup."""
    from rich.markup import escape

    return escape(text)


def _say_version(asked: bool) -> None:
    if asked:
        from gptdynamics import __version__

        say(f"gptdynamics {__version__}")
        raise typer.Exit


def _json_writer(path: Path | None) -> WriteJson:
    """Checked before any work. Where figures go to standard output, tables and messages go elsewhere."""
    print_beside_json(is_standard_output(path))
    if path is None:
        return lambda figures, indent=1: None
    check_output(path)
    return partial(write_output_json, path)


def _given(ctx: typer.Context, options: tuple[Option, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Values of the options that stand on the command line."""
    given = {name: value for name, value in given.items() if value is not None and value != []}
    found: dict[str, Any] = {}
    for option in options:
        if _option_name(option) in given:
            found[option.name] = option.from_words(given[_option_name(option)])
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


def _parameters(option: Option) -> list[inspect.Parameter]:
    """What an option is for typer: an argument, an option, and its hidden names."""
    line, text = option.line, escaped(option.help)
    kind = str if line.commas else option.kind
    hint: Any = (list[kind] if option.several else kind) | None  # type: ignore[valid-type]
    plain = f"<{option.kind.__name__}>..." if option.several else None
    metavar = "FILE" if line.writes else plain
    # A text is shown in brackets; where there is none, the command's help shows the default itself.
    shown = line.default or (option.default not in (None, False, ()) and not option.required)
    flags = [option.flag if option.kind is not bool else f"{option.flag}/{option.no_flag}"]
    flags += [f"--{each.replace('_', '-')}" for each in line.aliases]
    found = [
        (
            _option_name(option),
            typer.Option(*flags, help=text, metavar=metavar, show_default=shown, hidden=option.shown_argument),
        )
    ]
    if line.positional:
        argument = typer.Argument(metavar=option.name.upper(), help=text, show_default=shown, hidden=line.hidden)
        found.insert(0, (_argument_name(option), argument))
    return [_parameter(name, Annotated[hint, info], None) for name, info in found]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
