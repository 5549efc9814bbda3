"""What every method of an evaluation can do."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError


class NotApplicableError(DataError):
    """A method is not defined for a metric, or a dataset lacks what it needs; the message is the reason."""


class Predictor(Protocol):
    """A fitted method: its name in tables, where it was loaded from, and how many first values it is given."""

    name: str
    model: str | None
    history: int

    def predict(self, runs: Dynamics) -> np.ndarray:
        """Trajectories `[R, M, S]` from the runs' curricula and their first `history` values.

        Raises:
            NotApplicableError: the runs lack what the method needs.
        """
        ...
