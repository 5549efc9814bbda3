"""Trajectories of a recorded run or of a curriculum from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.parsing import read_json
from simulator.model.what_if import WhatIf
from simulator.settings.use_cases import SimulateSettings
from simulator.use_cases.case import load_case, load_part


@dataclass(frozen=True)
class SimulatedRun:
    """A predicted run. M test examples, T updates.

    Attributes:
        config, metric: of what.
        test_ids: of the M test examples.
        values: `[M, T + 1]`.
        low, high: ends of the band, or None.
        beyond: in which ways this goes beyond the runs that the model was trained on.
        measured: of a recorded run, `[M, S]` at the steps `measured_step` `[S]`; else None.
    """

    config: str
    metric: str
    test_ids: tuple[int, ...]
    values: torch.Tensor
    low: torch.Tensor | None
    high: torch.Tensor | None
    beyond: tuple[str, ...]
    measured: np.ndarray | None = None
    measured_step: tuple[int, ...] = ()

    def record(self) -> dict[str, object]:
        """Plain values."""
        return {
            "config": self.config,
            "metric": self.metric,
            "test_id": list(self.test_ids),
            "step": list(range(self.values.size(1))),
            "values": self.values.tolist(),
            "low": None if self.low is None else self.low.tolist(),
            "high": None if self.high is None else self.high.tolist(),
            "beyond": list(self.beyond),
            "measured": None if self.measured is None else self.measured.tolist(),
            "measured_step": list(self.measured_step),
        }


def read_curriculum(path: Path) -> dict[str, list]:
    """`curriculum` and perhaps `learning_rate` and `initial`, from a JSON file.

    Raises:
        DataError: it is not such a file; the message says where.
    """
    content = read_json(path)
    content = {"curriculum": content} if isinstance(content, list) else content
    fields = ("curriculum", "learning_rate", "initial")
    if not isinstance(content, dict) or "curriculum" not in content or set(content) - set(fields):
        raise DataError(f"{path}: must be a list of batches, or an object with {', '.join(fields)} and nothing else")
    batches = content["curriculum"]
    if not isinstance(batches, list) or not batches:
        raise DataError(f"{path}: the curriculum has no steps")
    for step, batch in enumerate(batches, start=1):
        if not isinstance(batch, list) or not batch or not all(type(key) is int for key in batch):
            raise DataError(f"{path}: step {step} must be a list of ids, not empty")
    for name in fields[1:]:
        values = content.get(name, [0.0])
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise DataError(f"{path}: {name} must be a list of numbers")
    return content


def simulate(settings: SimulateSettings) -> SimulatedRun:
    """Predict a run.

    Raises:
        GPTDynamicsError: model, dataset, run or curriculum cannot be read or do not fit each other.
    """
    if settings.dataset is None and settings.run is None:
        model, fact = load_part(settings.model, settings.config, settings.metric), None
    else:
        case = load_case(settings.model, settings.dataset, settings.config, settings.metric)
        model, fact = case.model, case.run(settings.run)
    try:
        run: WhatIf
        if settings.curriculum is None:
            run = model.what_if(fact)
        else:
            given = read_curriculum(settings.curriculum)
            initial: Any = given.get("initial")
            pool, test = (None, None) if fact is None else (fact.pool, fact.test)
            if initial is None and fact is not None:
                initial = fact.values[0, :, : model.history]
            run = model.what_if(given["curriculum"], pool, test, initial, given.get("learning_rate"))
        simulation = run.simulate(settings.interval)
    except ValueError as error:
        raise SettingsError(f"{settings.model}: {error}") from error
    band = settings.interval is not None
    recorded = fact if settings.curriculum is None else None
    return SimulatedRun(
        config=model.config.dataset_config,
        metric=model.config.metric,
        test_ids=run.situation.test_ids,
        values=simulation.prediction if band else simulation,
        low=simulation.low if band else None,
        high=simulation.high if band else None,
        beyond=run.beyond,
        measured=None if recorded is None else recorded.values[0],
        measured_step=() if recorded is None else tuple(recorded.step.tolist()),
    )
