"""What goes to the Hub beside data and weights: card templates."""

from __future__ import annotations

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
    environment.filters["without_path"] = _without_path
    return environment


def _cell(value: object) -> str:
    """A value in a cell of a Markdown table: names of models and datasets come from anybody."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _without_path(value: object) -> object:
    """A folder is named without its path, which is of one machine only."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
