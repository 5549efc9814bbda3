"""Collection: the runs of a plan, side by side, written as each one ends."""

from gptdynamics.collection.collect import collect
from gptdynamics.collection.settings import Collected, CollectSettings, missing_runs
from gptdynamics.settings.collect import RaySettings

__all__ = ["CollectSettings", "Collected", "RaySettings", "collect", "missing_runs"]
