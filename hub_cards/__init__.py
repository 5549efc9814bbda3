"""What goes to the Hub beside data and weights: card templates."""

from __future__ import annotations

from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill the card template of that file name; an unknown placeholder is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hub_cards", ""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(template).render(**values)
