"""The data of the explorer: measured runs, texts, and simulators as plain arrays.

A memory is sent as its parts, not as factors of every pair: 200 training examples of 8 components and 200 responses
of 65 x 8 numbers are 0.4 MB where 65 factor matrices are 10 MB. A markov is sent as its projected vectors,
or as factors where it has nothing else.
Measured values are sent in 65,536 levels between the lowest and the highest of each test example; whatever the
simulation begins with is sent as it is.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gptdynamics.configs import split_of
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from simulator.evaluation.simulated import Simulated
from simulator.model.configuration_gptfluence import Scale
from simulator.reporting.colours import dark_colour, method_colour

BAND = 0.9
_LEVELS = 65535


@dataclass(frozen=True)
class View:
    """The runs of one config and metric with the simulators to ask about them.

    Attributes:
        runs: R runs, measured for M test examples.
        simulators: trained for this config and metric.
    """

    runs: Dynamics
    simulators: tuple[Simulated, ...]


def explorer_payload(views: Sequence[View], texts: bool = True) -> dict[str, Any]:
    """Plain values that JSON can hold; typed arrays as base64 of little-endian bytes.

    Args:
        views: what can be chosen in the page, in this order.
        texts: send prompts and targets; else examples are named by their ids, and by their labels in label tasks.

    Raises:
        SettingsError: there is nothing to show, or a simulator was trained for something else than its runs.
    """
    if not views:
        raise SettingsError("the explorer has nothing to show: give at least one simulator")
    examples: dict[tuple[str, int, str | None, str | None], int] = {}

    def places(listed: Sequence[Example]) -> list[int]:
        return [examples.setdefault(_shown(each, texts), len(examples)) for each in listed]

    packed = [_view(view) | {"pool": places(view.runs.pool), "test": places(view.runs.test)} for view in views]
    return {"views": packed, "examples": [list(key) for key in examples]}


def _shown(example: Example, texts: bool) -> tuple[str, int, str | None, str | None]:
    """Task, id, prompt and target of an example; None where there is no text, or none is to be sent."""
    label = not example.references
    target = example.target if texts or label else ""
    return example.task, example.id, (example.prompt if texts else "") or None, target or None


def _view(view: View) -> dict[str, Any]:
    runs = view.runs
    for simulated in view.simulators:
        simulated.check(runs)
    place = {example.id: at for at, example in enumerate(runs.pool)}
    schedules = list(dict.fromkeys(map(tuple, runs.learning_rate.tolist())))
    low, high = runs.values.min((0, 2)), runs.values.max((0, 2))
    size = np.where(high > low, high - low, 1)
    levels = np.rint((runs.values - low[:, None]) / size[:, None] * _LEVELS).astype("<u2")
    given = max((simulated.history for simulated in view.simulators), default=1)
    return {
        "config": runs.config,
        "metric": runs.metric,
        "axis": runs.definition.axis_title,
        "baseModel": runs.base_model,
        "batchSize": runs.batch_size,
        "step": runs.step.tolist(),
        "runs": [
            {
                "name": name,
                "split": split_of(name),
                "batches": [[place[key] for key in batch] for batch in curriculum],
                "rates": schedules.index(tuple(rates)),
            }
            for name, curriculum, rates in zip(runs.runs, runs.curricula, runs.learning_rate.tolist(), strict=True)
        ],
        "rates": [_floats(schedule) for schedule in schedules],
        "levels": _base64(levels),
        "low": _floats(low),
        "high": _floats(high),
        "initial": _floats(runs.values[..., :given]),
        "models": [_model(simulated, runs) for simulated in view.simulators],
    }


def _model(simulated: Simulated, runs: Dynamics) -> dict[str, Any]:
    """What `simulation.js` needs of a simulator, for the pool and the test examples of these runs."""
    model = simulated.simulator
    situation = model.what_if(runs.take([0])).situation
    with torch.no_grad():
        try:
            scalars, arrays = model.dynamics.page_arrays(situation.examples)
        except ValueError as error:
            raise SettingsError(f"{simulated.name}: {error}") from error
    # A model that too few runs were left out for has no band; the page then shows none.
    with suppress(ValueError):
        arrays["width"] = model.band_width(len(runs.curricula[0]) + 1, situation.examples.seen, BAND)
    return {
        "name": simulated.name,
        "colour": method_colour(simulated.name),
        "dark": dark_colour(simulated.name),
        "dynamics": model.config.dynamics,
        **_scale(model.config.scale),
        "firstStep": model.config.first_step,
        "pool": len(situation.pool_ids),
        "tests": len(situation.test_ids),
        "widthSteps": len(runs.curricula[0]),
        **scalars,
        "arrays": {name: _floats(values) for name, values in arrays.items()},
    }


def _scale(scale: Scale) -> dict[str, Any]:
    """JSON has no infinite numbers: null stands for an end that is one."""
    fields = scale.fields()
    return {"latent": fields["latent"], "range": [fields["least"], fields["greatest"]]}


def _floats(values: Any) -> str:
    array = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return _base64(np.ascontiguousarray(array, dtype="<f4"))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
