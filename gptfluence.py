"""GPTfluence under a name of its own: the public names of the package `simulator`, imported when they are asked for.

`simulator` is a common name. Where another package of that name comes first on `sys.path`, this module says so.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.errors import GPTDynamicsError
from gptdynamics.lazy import lazy_names

if TYPE_CHECKING:
    from simulator import (
        GPTfluenceConfig,
        GPTfluenceSimulator,
        evaluate,
        influence,
        mislabel,
        report,
        select,
        train,
        validate,
        what_if,
    )

__all__ = [
    "GPTfluenceConfig",
    "GPTfluenceSimulator",
    "evaluate",
    "influence",
    "mislabel",
    "report",
    "select",
    "train",
    "validate",
    "what_if",
]


class ShadowedPackageError(GPTDynamicsError, ImportError):
    """The package `simulator` that Python finds is not that of GPTfluence."""


def _check_simulator() -> None:
    """Raise ShadowedPackageError if another package is found as `simulator`; it is not imported for that."""
    try:
        spec = importlib.util.find_spec("simulator")
    except ValueError:  # of a module that was put into sys.modules without one
        spec = None
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    if any((place / "model" / "modeling_gptfluence.py").is_file() for place in places):
        return
    other = (spec.origin or ", ".join(map(str, places))) if spec else None
    found = f"Python finds another one, {other}" if other else "Python does not find it"
    raise ShadowedPackageError(
        f"gptfluence needs its package 'simulator': {found}. Rename or uninstall the other package, remove its folder "
        f"from sys.path (PYTHONPATH, or the folder that Python starts in), or put {Path(__file__).parent} before it"
    )


_check_simulator()
__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "simulator"))


def main() -> None:
    """The `gptfluence` command."""
    from simulator.cli import main as run

    run()


if __name__ == "__main__":
    main()
