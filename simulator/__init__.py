"""GPTfluence: simulators of training dynamics, their training, evaluation and report.

Public names are imported when they are first asked for; importing the package loads none of the slow libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptdynamics.lazy import lazy_names

if TYPE_CHECKING:
    from simulator.api import evaluate, influence, mislabel, report, select, train, validate, what_if
    from simulator.model.configuration_gptfluence import GPTfluenceConfig
    from simulator.model.modeling_gptfluence import GPTfluenceSimulator

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

__getattr__, __dir__ = lazy_names(
    __name__,
    dict.fromkeys(__all__, "simulator.api")
    | {
        "GPTfluenceConfig": "simulator.model.configuration_gptfluence",
        "GPTfluenceSimulator": "simulator.model.modeling_gptfluence",
    },
)
