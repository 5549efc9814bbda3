"""The kinds of dynamics: a new one adds its line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dynamics import DynamicsModule
from .markov_dynamics import MarkovDynamics
from .memory_dynamics import MemoryDynamics
from .table_dynamics import TableDynamics
from .tangent_dynamics import TangentDynamics

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig

DYNAMICS: list[type[DynamicsModule]] = [
    MemoryDynamics,
    MarkovDynamics,
    TableDynamics,
    TangentDynamics,
]


def kind_names() -> tuple[str, ...]:
    """Names of the kinds, each once."""
    return tuple(dict.fromkeys(kind.name for kind in DYNAMICS))


def kind_named(name: str) -> type[DynamicsModule]:
    """The first kind of this name.

    Raises:
        ValueError: there is none; the message names the kinds.
    """
    for kind in DYNAMICS:
        if kind.name == name:
            return kind
    raise ValueError(f"dynamics={name!r} must be one of {', '.join(map(repr, kind_names()))}")


def kind_of(config: GPTfluenceConfig) -> type[DynamicsModule]:
    """The class of a configuration's dynamics.

    Raises:
        ValueError: as of `kind_named`, or no class of the kind serves the configuration.
    """
    for kind in DYNAMICS:
        if kind.serves(config):
            return kind
    kind_named(config.dynamics)
    raise ValueError(f"dynamics={config.dynamics!r}: no class of this kind serves this configuration")
