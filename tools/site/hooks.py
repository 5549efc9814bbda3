"""Called by mkdocs: the page of commands, and the experiments' pages in the navigation.

A page says `<!-- commands of gptdynamics -->` where the commands of a program are to stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from gptdynamics.options import Option

RESULTS = "results"
_HERE = re.compile(r"^<!-- commands of (\w+) -->$", re.MULTILINE)
# Options that only some commands have, and that come from no settings; those that every command has stand on the page.
_OTHERS = ("dry_run", "json")


def on_config(config: Any) -> Any:
    """Add the pages of experiments to the navigation, by title."""
    (section,) = (each["Results"] for each in config.nav if "Results" in each)
    pages = sorted(Path(config.docs_dir, RESULTS).glob("*.md"), key=lambda path: path.read_text(encoding="utf-8"))
    section += [name for name in (f"{RESULTS}/{path.name}" for path in pages) if name not in section]
    return config


def on_page_markdown(markdown: str, **others: Any) -> str:
    """Put the commands where a page asks for them."""
    return _HERE.sub(lambda found: "\n".join(describe_program(found[1])), markdown)


def on_post_page(output: str, **others: Any) -> str:
    """Give the theme's search a name, and the contents of a page in the menu another than those beside the page."""
    search, contents = 'data-md-component="search" role="dialog"', 'md-nav--secondary" aria-label="Table of contents"'
    output = output.replace(search, f'{search} aria-label="Search"')
    if output.count(contents) > 1:
        output = output.replace(contents, 'md-nav--secondary" aria-label="Contents of this page"', 1)
    return output


def describe_program(name: str) -> Iterator[str]:
    """Lines of Markdown: each command of `gptdynamics` or `gptfluence`, with its arguments, options and defaults."""
    from gptdynamics.cli import app as gptdynamics
    from simulator.cli import app as gptfluence

    group: Any = typer.main.get_command({"gptdynamics": gptdynamics, "gptfluence": gptfluence}[name])
    for command_name, command in group.commands.items():
        arguments = [each.name.upper() for each in command.options if each.is_argument]
        yield f"### {name} {command_name}\n\n{_plain(command.help)}\n"
        yield f"```text\n{' '.join([name, command_name, *arguments])} [OPTIONS]\n```\n"
        yield "| option | meaning | default |\n| --- | --- | --- |"
        for option in command.options:
            yield f"| {_name(option)} | {_cell(option.help)} | {_cell(_default(option))} |"
        for other in command.params:
            if other.name in _OTHERS:
                yield f"| `{other.opts[0]}{' FILE' if other.metavar else ''}` | {_cell(_plain(other.help))} | |"
        yield ""


def _name(option: Option) -> str:
    """An argument in capitals; an option with what it takes, or with what switches it off."""
    if option.is_argument:
        return f"`{option.name.upper()}`"
    if option.kind is bool:
        return f"`{option.flag}`, `{option.no_flag}`" if option.default is True else f"`{option.flag}`"
    return f"`{option.flag} {'FILE' if option.line.writes else option.kind.__name__.upper()}{'...' * option.several}`"


def _default(option: Option) -> str:
    """What holds where the option is not given."""
    if option.default is MISSING:
        return "must be given"
    if option.line.default is not None or option.default in (None, False, True, ()):
        return option.line.default or ""
    return ", ".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)


def _cell(text: str) -> str:
    """A text in a cell of a table; names in angle brackets are no HTML."""
    return re.sub(r"(?<!`)(<\w+>(?:[/_.:]<?\w+>?)*)(?!`)", r"`\1`", " ".join(text.split())).replace("|", "\\|")


def _plain(text: str | None) -> str:
    """A text of `--help` without the terminal's markup."""
    return Text.from_markup(text or "").plain
