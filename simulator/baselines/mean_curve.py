"""Every run is like the average run."""

from __future__ import annotations

import numpy as np

from gptdynamics.dataset import Dynamics


class MeanCurve:
    """The mean of each test example's curve over the runs it was fitted on.

    Args:
        runs: training and validation runs.
    """

    name = "mean_curve"
    model: str | None = None
    history = 1

    def __init__(self, runs: Dynamics) -> None:
        self.curve = runs.values.mean(0)

    def predict(self, runs: Dynamics) -> np.ndarray:
        """The mean curves, whatever the curriculum: `[R, M, S]`."""
        return np.broadcast_to(self.curve, runs.values.shape).copy()


class MeanCurveShifted(MeanCurve):
    """The mean curve, moved up or down so that it passes through the last value that is given.

    Args:
        runs: training and validation runs.
        history: how many first values are given; the longest history of any method it is compared with.
    """

    name = "mean_curve_shifted"

    def __init__(self, runs: Dynamics, history: int = 1) -> None:
        super().__init__(runs)
        self.history = history

    def predict(self, runs: Dynamics) -> np.ndarray:
        """The first values as given, then the shifted mean curves: `[R, M, S]`."""
        last = self.history - 1
        predicted = self.curve + (runs.values[..., last] - self.curve[:, last])[..., None]
        predicted[..., : self.history] = runs.values[..., : self.history]
        return predicted
