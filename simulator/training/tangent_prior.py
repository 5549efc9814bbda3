"""Coefficients of tangent dynamics fitted on our releases (`tools/tangent_prior.py`): what few runs are drawn towards.

Those of `sst2_nano` alone say of single runs of `rte_nano` and `boolq_nano` most of what they do to the loss; of the
texts of `wmt16_nano` a little, of `webnlg_nano` next to nothing.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from simulator.training.memory_states import FEW, Filters

_FILE = Path(__file__).with_suffix(".json")


@cache
def _shipped() -> np.ndarray:
    """`[P][base, early, late][filters of FEW]`, for kernels of unit mean square."""
    return np.array(json.loads(_FILE.read_text(encoding="utf-8"))["weights"])


def prior_weights(grouping: str, scaling: float, filters: Filters) -> np.ndarray | None:
    """The coefficients `[P * G * F]` of a setting, for features that are not scaled; None: there are none for it."""
    if filters != FEW or scaling != 1.0:
        return None
    weights = _shipped()
    return (weights if grouping == "base_early_late" else weights.sum(1, keepdims=True)).flatten()
