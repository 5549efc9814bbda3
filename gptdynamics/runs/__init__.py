"""Single runs: the bench they share, the update loop, measurement after every update, and worker processes."""

from gptdynamics.runs.bench import Bench, BenchContents
from gptdynamics.runs.run import Run, RunTiming
from gptdynamics.runs.training import train_run

__all__ = ["Bench", "BenchContents", "Run", "RunTiming", "train_run"]
