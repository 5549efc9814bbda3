"""An extension of griffe, which reads the sources for the Python page: docstrings as that page needs them."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

# `a, b: text` in a section, with the lines that go on; each name gets a line of its own.
_SHARED = re.compile(r"^( +)((?:\w+, )+\w+): (.*(?:\n\1 +.*)*)", re.MULTILINE)


class ProjectDocstrings(griffe.Extension):
    """Changes what was read before it is shown."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Sections as griffe reads them."""
        if obj.docstring is not None:
            obj.docstring.value = _sections(obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **others: Any) -> None:
        """Keywords that are the fields of a settings dataclass are in the signature once the function is imported."""
        if func.docstring is None or not any("takes_fields_of" in str(each.value) for each in func.decorators):
            return
        function = getattr(importlib.import_module(func.module.path), func.name)
        func.docstring.value = _sections(function.__doc__)
        func.parameters = griffe.Parameters(*map(_parameter, inspect.signature(function).parameters.values()))


def _parameter(of: inspect.Parameter) -> griffe.Parameter:
    """A parameter as griffe reads it; functions that are defaults have no names to show."""
    shown = "..." if callable(of.default) else repr(of.default)
    return griffe.Parameter(
        of.name,
        annotation=None if of.annotation is of.empty else str(of.annotation),
        kind=griffe.ParameterKind[of.kind.name.lower()],
        default=None if of.default is of.empty else shown,
    )


def _sections(text: str) -> str:
    """Examples under the name that griffe knows, and each parameter on a line of its own."""
    alone = _SHARED.sub(lambda found: "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", ")), text)
    return alone.replace("\nExample:\n", "\nExamples:\n")
