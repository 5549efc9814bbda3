"""Every experiment of the paper, on whichever dataset is given."""

from simulator.experiments.registry import EXPERIMENTS, run_all, run_experiment
from simulator.experiments.workbench import Workbench

__all__ = ["EXPERIMENTS", "Workbench", "run_all", "run_experiment"]
