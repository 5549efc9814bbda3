"""Methods to compare simulators with; all predict the trajectories of runs."""

from simulator.baselines.mean_curve import MeanCurve, MeanCurveShifted
from simulator.baselines.persistence import Persistence
from simulator.baselines.predictor import NotApplicableError, Predictor
from simulator.baselines.registry import BASELINES, fit_baseline
from simulator.baselines.simfluence import Simfluence
from simulator.baselines.simfluence_descent import SimfluenceDescent

__all__ = [
    "BASELINES",
    "MeanCurve",
    "MeanCurveShifted",
    "NotApplicableError",
    "Persistence",
    "Predictor",
    "Simfluence",
    "SimfluenceDescent",
    "fit_baseline",
]
