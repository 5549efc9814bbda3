"""Validation runs that were made again with rows left out: what settings can be chosen by besides runs left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gptdynamics.configs import run_parts, split_of
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import DatasetFolder, Dynamics, read_dynamics
from gptdynamics.dataset.reading import local_root
from gptdynamics.errors import DataError
from simulator.attribution.lds import FEWEST_RETRAININGS


@dataclass(frozen=True)
class Retrainings:
    """One validation run made again n times. M test examples, S measured steps.

    Attributes:
        base: name of the run.
        curricula: n times `[T][batch]` pool ids.
        step: `[S]`, after the first update.
        values: `[n, M, S]`.
    """

    base: str
    curricula: list[Curriculum]
    step: np.ndarray
    values: np.ndarray


def validation_retrainings(runs: Dynamics) -> list[Retrainings]:
    """Those of a dataset for each validation run among `runs`, of their config and metric; often there are none.

    Raises:
        DataError: a file is damaged, or they do not have the test examples of `runs`.
    """
    try:
        finished = DatasetFolder(local_root(runs.source)).finished(runs.config)
    except DataError:
        # Runs that are not of a dataset have no retrainings.
        return []
    validation = {run for run in runs.runs if split_of(run) == "validation"}
    if not any(run_parts(run).base in validation for run in finished):
        return []
    every = read_dynamics(runs.source, runs.config, runs.metric, counterfactual=True)
    place = {example.id: index for index, example in enumerate(every.test)}
    if any(example.id not in place for example in runs.test):
        raise DataError(f"{runs.config}: counterfactual runs were measured on other test examples")
    tests = [place[example.id] for example in runs.test]
    by_base: dict[str, list[int]] = {}
    for index, run in enumerate(every.runs):
        base = run_parts(run).base
        if base in validation:
            by_base.setdefault(base, []).append(index)
    later = np.flatnonzero(every.step > every.step[0])
    return [
        Retrainings(
            base,
            [every.curricula[index] for index in places],
            every.step[later],
            every.values[places][:, tests][..., later].astype(np.float64),
        )
        for base, places in by_base.items()
        if len(places) >= FEWEST_RETRAININGS
    ]
