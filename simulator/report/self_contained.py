"""Pages that load nothing: plotly and the data are part of the file."""

from __future__ import annotations

import json
from importlib import resources


def _script_json(value: object) -> str:
    """JSON that can stand in a script element: no character of it can end the element.

    Everything outside ASCII is escaped too, U+2028 and U+2029 and lone surrogates among it.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def render_page(package: str, template: str, data: object, plotly: bool = True, **context: object) -> str:
    """Fill a template; texts are escaped.

    Args:
        package, template: where the template is.
        data: plain values for a script, given to the template as `data`, in JSON.
        plotly: give the template the library as `plotly`; else that is empty.
        context: what else the template uses.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    source = resources.files(package).joinpath(template).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    library = get_plotlyjs().replace("</script", "<\\/script") if plotly else ""
    return environment.from_string(source).render(data=Markup(_script_json(data)), plotly=Markup(library), **context)
