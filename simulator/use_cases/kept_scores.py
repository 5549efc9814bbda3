"""Scores of `mislabel` in a file: making them takes long, and trainings after correction do not change them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gptdynamics.tensor_files import read_tensors, write_tensors
from simulator.use_cases.mislabel_rankings import SCORES

_SECONDS = "seconds."


def write_scores(path: Path, scores: Mapping[str, np.ndarray], seconds: Mapping[str, float]) -> None:
    """Write scores, and the processor seconds that they took.

    Raises:
        DataError: the file cannot be written.
    """
    times = {f"{_SECONDS}{name}": np.array(value) for name, value in seconds.items()}
    write_tensors(path, {**scores, **times}, {}, "scores")


def read_scores(path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What was written, scores in the order in which tables have them.

    Raises:
        DataError: the file is damaged.
        KeyError: a score is not in it.
    """
    arrays, _ = read_tensors(path, "scores")
    times = {name.removeprefix(_SECONDS): float(value) for name, value in arrays.items() if name.startswith(_SECONDS)}
    return {name: arrays[name] for name in SCORES}, times
