"""Single runs: training on a curriculum with measurement after every update."""

from gptdynamics.runs.run import Run, RunTiming
from gptdynamics.runs.training import train_run

__all__ = ["Run", "RunTiming", "train_run"]
