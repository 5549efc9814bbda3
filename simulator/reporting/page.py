"""Pages that load nothing: scripts, styles and data are part of the file."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.outputs import write_output_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("simulator.reporting", "")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["with_code"] = with_code
    return made


def with_code(text: str) -> Markup:
    """A text as HTML, escaped; what stands between a pair of backticks is code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _script_json(value: object) -> str:
    """JSON that can stand in a script element: no character of it can end the element.

    Everything outside ASCII is escaped too, U+2028 and U+2029 and lone surrogates among it.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def write_page(path: Path, template: str, *, data: object = None, plotly: bool = False, **context: object) -> int:
    """Fill a template of this package and write the page, whole or not at all; texts are escaped.

    Args:
        path: of the HTML file; its folder is made if needed.
        template: its path in this package.
        data: plain values for a script, given to the template as `data`, in JSON.
        plotly: give the template the library as `plotly`; else that is empty.
        context: what else the template uses.

    Returns:
        The page's size in bytes.

    Raises:
        DataError: the file cannot be written.
    """
    from markupsafe import Markup

    library = ""
    if plotly:
        from plotly.offline import get_plotlyjs

        library = get_plotlyjs().replace("</script", "<\\/script")
    page = (
        _environment().get_template(template).render(data=Markup(_script_json(data)), plotly=Markup(library), **context)
    )
    write_output_text(path, page)
    return len(page.encode("utf-8", "replace"))
