"""Collection: makes the runs of a plan in parallel and writes each when it ends."""

from gptdynamics.collection.collect import collect
from gptdynamics.collection.settings import Collected, CollectSettings, missing_runs
from gptdynamics.settings.collect import RaySettings

__all__ = ["CollectSettings", "Collected", "RaySettings", "collect", "missing_runs"]
