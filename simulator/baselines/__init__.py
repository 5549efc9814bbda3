"""Methods to compare simulators with; all predict the trajectories of runs."""

from simulator.baselines.mean_curve import MeanCurve
from simulator.baselines.persistence import Persistence
from simulator.baselines.predictor import Predictor
from simulator.baselines.simfluence import SimfluenceLinear

__all__ = ["MeanCurve", "Persistence", "Predictor", "SimfluenceLinear"]
