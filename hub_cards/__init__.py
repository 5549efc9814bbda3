"""What goes to the Hub beside data and weights: card templates."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


# What Markdown takes for links, pictures, code or emphasis.
_MARKDOWN = re.compile(r"[\\`*\[\]]")


def render(template: str, **values: Any) -> str:
    """Fill the card template of that file name; an unknown placeholder is an error."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hub_cards", ""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["cell"] = _cell
    environment.filters["text"] = _text
    environment.filters["code"] = _code
    environment.filters["one_line"] = _one_line
    environment.filters["yaml"] = yaml_text
    environment.filters["without_path"] = _without_path
    return environment


def yaml_text(value: object) -> str:
    """A text in YAML, always quoted: many a name would otherwise be read as a number, a date or a truth value."""
    quoted = json.dumps(str(value), ensure_ascii=False)
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in quoted)


def _escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def _cell(value: object) -> str:
    """A value in a cell of a Markdown table, as text."""
    return _text(value).replace("|", "\\|")


def _text(value: object) -> str:
    """A value in Markdown, as text and no markup: names of models, tasks and licences come from anybody."""
    return _MARKDOWN.sub(r"\\\g<0>", _one_line(value)).replace("&", "&amp;").replace("<", "&lt;")


def _code(value: object) -> str:
    """A value between backticks: it must not end them."""
    return _one_line(value).replace("`", "'")


def _one_line(value: object) -> str:
    """A value without ends of lines and control characters."""
    # The package uses these cards: it is not there yet when they are imported.
    from gptdynamics.terminal_text import safe_text

    return safe_text(" ".join(str(value).split()))


def _without_path(value: object) -> object:
    """A folder is named without its path, which is of one machine only."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
