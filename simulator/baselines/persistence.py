"""Nothing changes."""

from __future__ import annotations

import numpy as np

from gptdynamics.dataset import Dynamics


class Persistence:
    """Every value equals the first."""

    name = "persistence"
    model: str | None = None
    history = 1

    def predict(self, runs: Dynamics) -> np.ndarray:
        """The first value of each trajectory, repeated: `[R, M, S]`."""
        return np.repeat(runs.values[..., :1], runs.values.shape[-1], axis=-1)
