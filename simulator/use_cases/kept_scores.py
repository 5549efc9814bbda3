"""Scores of `mislabel` on disk: making them takes long, and trainings after correction do not change them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gptdynamics.configs import RunSettings
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.tensor_files import read_tensors, write_tensors
from simulator.use_cases.mislabel_rankings import SCORES

SECONDS = "seconds."


def scores_path(
    folder: Path, settings: RunSettings, runs: Sequence[str], pool: Sequence[Example], revision: str
) -> Path:
    """Where scores are, or would be: the name stands for everything that they depend on.

    Args:
        folder: of the command's output.
        settings: of the runs that the scores are made of.
        runs: their names.
        pool: as it is labelled.
        revision: of the base model's weights.
    """
    texts = [(each.id, each.prompt, each.target) for each in pool]
    content = json.dumps([settings.to_dict(), list(runs), texts, revision], sort_keys=True)
    return folder / f"scores-{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"


def save_scores(path: Path, scores: Mapping[str, np.ndarray], seconds: Mapping[str, float]) -> None:
    """Keep scores, and the processor seconds that they took.

    Raises:
        DataError: the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(values) for name, values in scores.items()}
    arrays |= {f"{SECONDS}{name}": np.array(value) for name, value in seconds.items()}
    write_tensors(path, arrays, {}, "scores")


def load_scores(path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]] | None:
    """What was kept; None if nothing was, if it is damaged, or if a score is not in it."""
    if not path.exists():
        return None
    try:
        arrays, _ = read_tensors(path, "scores")
    except DataError:
        return None
    seconds = {name.removeprefix(SECONDS): float(value) for name, value in arrays.items() if name.startswith(SECONDS)}
    scores = {name: values for name, values in arrays.items() if not name.startswith(SECONDS)}
    if not scores.keys() >= set(SCORES):
        return None
    # Tensors are stored by name; tables have the methods in this order.
    return {name: scores[name] for name in SCORES}, seconds
