"""Single runs: a bench to train on, the update loop, measurement after every update, and processes to do it in."""

from gptdynamics.runs.bench import Bench, BenchContents
from gptdynamics.runs.run import Run, RunTiming
from gptdynamics.runs.training import train_run

__all__ = ["Bench", "BenchContents", "Run", "RunTiming", "train_run"]
