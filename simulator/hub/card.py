"""The card of a simulator: its figures on held-out runs, and a picture of what it predicts there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.hub.source import is_hub_id
from gptdynamics.models.base_model import base_model_source
from hub_cards import render
from hub_cards.figure import Line, Panel, draw_panels
from simulator.baselines import MeanCurve
from simulator.evaluation.selection import at_quantiles
from simulator.evaluation.simulated import Simulated, simulated_of
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.kinds import kind_of
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.reporting.colours import TRUTH, method_colour
from simulator.training.fitting import fitter_named

FIGURE = "trajectories.svg"
FIGURES = {
    "mse": "all-steps MSE",
    "mae": "all-steps MAE",
    "spearman": "final-step Spearman",
    "skill": "skill",
}
# What a row of an evaluation says besides: of which model, and what it was scored on.
_ABOUT = ("config", "metric", "split", "runs")
FIGURE_FIELDS = ("model", *_ABOUT, *FIGURES)
GENERATED_METADATA = ("datasets", "base_model", "model-index")
_COLUMNS, _ROWS = 4, 6


def figures_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of a row of an evaluation that are defined, each with its name and what it was scored on."""
    about = {name: row[name] for name in _ABOUT}
    return [
        {"type": key, "name": name, "value": row[key]} | about for key, name in FIGURES.items() if row[key] is not None
    ]


def draw_held_out(simulator: GPTfluenceSimulator, dataset: str) -> str:
    """An SVG of true and predicted trajectories of held-out runs, a row for each config and metric.

    The four pairs of a run and a test example are those at the 20th, 40th, 60th and 80th percentile of the simulator's
    error.

    Args:
        simulator: the model.
        dataset: folder or Hub id of the runs it was trained on.

    Raises:
        GPTDynamicsError: the runs cannot be read, none is held out, or the model was trained for others.
    """
    groups = simulator.config.groups
    panels: list[Panel] = []
    for config, metric in groups[:_ROWS]:
        runs = read_dynamics(dataset, config, metric)
        title = runs.definition.title
        panels += _panels(simulated_of(simulator, None, runs), runs, title if len(groups) == 1 else f"{config} {title}")
    return draw_panels(panels, _COLUMNS)


def _panels(method: Simulated, runs: Dynamics, y_title: str) -> list[Panel]:
    held_out = runs.split("test")
    predicted = method.predict(held_out)
    mean = MeanCurve(runs.split("train", "validation")).predict(held_out)
    squared = np.square(predicted - held_out.values).mean(-1)
    drawn = (
        (mean, method_colour("mean_curve"), "mean of training runs", 1.0),
        (held_out.values, method_colour(TRUTH), TRUTH, 1.6),
        (predicted, method_colour(method.name), "this simulator", 1.2),
    )
    panels = []
    for run, test in at_quantiles(squared, _COLUMNS + 1):
        lines = [
            Line(held_out.step.tolist(), values[run, test].tolist(), colour, label, width)
            for values, colour, label, width in drawn
        ]
        panels.append(Panel(f"run {held_out.runs[run]}, test example {held_out.test[test].id}", y_title, lines))
    return panels


def render_model_card(
    repo: str,
    config: GPTfluenceConfig,
    training: dict[str, Any] | None,
    results: list[dict[str, Any]],
    figure: str | None,
    tags: Sequence[str] = (),
) -> str:
    """README.md of a simulator.

    Args:
        repo: the repository that it is for.
        config: of the simulator.
        training: what `Trained.save` wrote beside it, whose dataset is a Hub id or None; or None if it is not known how
            the simulator was trained.
        results: as `figures_of` has them; empty: nothing was evaluated.
        figure: the picture's file name, or None.
        tags: further tags.
    """
    parts = [config.part(place) for place in range(len(config.groups))]
    bases = {base_model_source(part.base_model)[0] for part in parts}
    return render(
        "model_card.md.jinja",
        repo=repo,
        config=config,
        parts=parts,
        dataset=training["settings"]["dataset"] if training else None,
        training=training,
        checked_on=fitter_named(config.dynamics).checked_on[1],
        base_models=sorted(filter(is_hub_id, bases)),
        kernels=kind_of(config).has_kernels,
        arguments=_arguments(config),
        results=results,
        figure=figure,
        command=_train_command(training["settings"]) if training else None,
        tags=tags,
    )


def _arguments(config: GPTfluenceConfig) -> str:
    """The arguments that `simulate` needs besides a curriculum, as code."""
    first, arguments = config.part(0), ""
    if kind_of(config).needs_initial:
        arguments += f", initial=[[1.0] * {kind_of(config).history(config)}] * {len(first.test_ids)}"
    if config.parts:
        arguments += f', config="{first.dataset_config}", metric="{first.metric}"'
    return arguments


def _train_command(settings: dict[str, Any]) -> str:
    """The command line that trains the same simulator."""
    words = ["gptfluence", "train", settings["dataset"] or "DATASET"]
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif name != "dataset" and value is not None:
            for each in value if isinstance(value, list) else [value]:
                words += [f"--{option}", str(each)]
    return shlex.join([*words, "--output", "model"])
