"""Every baseline by name: fitted on runs, it predicts the trajectories of runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from simulator.baselines import tracin
from simulator.baselines.mean_curve import MeanCurve, MeanCurveShifted
from simulator.baselines.persistence import Persistence
from simulator.baselines.predictor import Predictor
from simulator.baselines.published_tracin import PublishedTracIn
from simulator.baselines.simfluence import Kind, Simfluence
from simulator.baselines.simfluence_descent import SimfluenceDescent

Fit = Callable[[Dynamics, int], Predictor]


def _simfluence(kind: Kind, seen: Dynamics, history: int) -> Predictor:
    return Simfluence(kind, seen.split("train"), seen.split("validation"))


def _descent(seen: Dynamics, history: int) -> Predictor:
    return SimfluenceDescent(seen.split("train"), seen.split("validation"))


BASELINES: dict[str, Fit] = {
    "persistence": lambda seen, history: Persistence(),
    "mean_curve": lambda seen, history: MeanCurve(seen),
    "mean_curve_shifted": MeanCurveShifted,
    "simfluence_additive": partial(_simfluence, "additive"),
    "simfluence_multiplicative": partial(_simfluence, "multiplicative"),
    "simfluence_linear": partial(_simfluence, "linear"),
    "simfluence_linear_adamw": _descent,
    "tracin_cp_10": lambda seen, history: tracin.tracin_cp_10(seen),
    "tracin_cp_all": lambda seen, history: tracin.tracin_cp_all(seen),
    "grad_dot": lambda seen, history: tracin.grad_dot(seen),
    "update_dot": lambda seen, history: tracin.update_dot(seen),
    "tracin_cp_published": lambda seen, history: PublishedTracIn(seen),
}


def fit_baseline(name: str, seen: Dynamics, history: int = 1) -> Predictor:
    """Fit a baseline on training and validation runs; `history` is the longest of any method it is compared with.

    Raises:
        SettingsError: there is no such baseline.
        NotApplicableError: it is not defined for the runs' metric, or they lack what it needs.
        DataError: there are no training or no validation runs.
    """
    if name not in BASELINES:
        raise SettingsError(f"no baseline {name!r}; there are: {', '.join(BASELINES)}")
    return BASELINES[name](seen, history)
