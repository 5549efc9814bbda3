"""What goes to the Hub beside data and weights: card templates."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


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
    """A value in a cell of a Markdown table: names of models and datasets come from anybody."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _without_path(value: object) -> object:
    """A folder is named without its path, which is of one machine only."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
