"""One run: training of a base model on one curriculum, with every test example measured on the way."""

from gptdynamics.runs.run import Run, RunTiming, train_run

__all__ = ["Run", "RunTiming", "train_run"]
