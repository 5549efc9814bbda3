"""GPTfluence: simulators of training dynamics, their training, evaluation and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.model.configuration_gptfluence import GPTfluenceConfig
    from simulator.model.modeling_gptfluence import GPTfluenceSimulator

__all__ = ["GPTfluenceConfig", "GPTfluenceSimulator"]


def __getattr__(name: str) -> Any:
    """Import the model classes when they are first asked for: they load torch and transformers."""
    if name == "GPTfluenceSimulator":
        from simulator.model.modeling_gptfluence import GPTfluenceSimulator

        return GPTfluenceSimulator
    if name == "GPTfluenceConfig":
        from simulator.model.configuration_gptfluence import GPTfluenceConfig

        return GPTfluenceConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
