"""Every method on the held-out runs of one config and metric."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from gptdynamics.atomic import write_text
from gptdynamics.dataset import Dynamics, read_dynamics
from simulator.baselines import MeanCurve, Persistence, Predictor, SimfluenceLinear
from simulator.evaluation.scoring import Row, score
from simulator.evaluation.simulated import Simulated, load_simulator
from simulator.training import TrainSettings, train_simulator


@dataclass(frozen=True)
class EvaluateSettings:
    """What one `evaluate` does.

    Attributes:
        dataset: folder or Hub id.
        config: `<task>_<size>`.
        metric: what is compared.
        models: simulators to score; none: markov and memory are trained here with each encoder.
    """

    dataset: str
    config: str
    metric: str = "loss"
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Rows of the table, and what they were computed from.

    Attributes:
        rows: one for each method.
        runs: the held-out runs.
        predictions: `[R, S, M]` by method.
    """

    rows: list[Row]
    runs: Dynamics
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    def write_json(self, path: Path) -> None:
        """Write the rows as a JSON list."""
        write_text(path, json.dumps([asdict(row) for row in self.rows], indent=1) + "\n")


def _trained_here(settings: EvaluateSettings, runs: Dynamics) -> list[TrainSettings]:
    """What is trained for the table: label-only vectors on label tasks, and everything where no model is given.

    Examples without targets of their own, as imported ones may be, have neither label nor gradient vectors.
    """
    known = all(example.target or example.withheld for example in runs.pool)
    wanted = [("memory", "label")] if known and not runs.test[0].references else []
    if not settings.models:
        wanted = [("markov", "sentence"), *wanted, ("memory", "sentence")]
        wanted += [("memory", "gradient")] if known else []
    return [
        TrainSettings(settings.dataset, settings.config, settings.metric, dynamics=dynamics, encoder=encoder)
        for dynamics, encoder in wanted
    ]


def _unique_names(methods: Sequence[Predictor]) -> list[str]:
    """Names of the methods; where two are alike the model's folder is added, in full if it must be."""
    names = [method.name for method in methods]
    for whole in (False, True):
        repeated = {name for name in names if names.count(name) > 1}
        for at, method in enumerate(methods):
            if names[at] in repeated and method.model:
                names[at] = f"{method.name} ({method.model if whole else Path(method.model).name})"
    return names


def evaluate(
    settings: EvaluateSettings,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score every method on the test runs.

    Args:
        settings: data and models.
        on_phase, on_progress: as in `train_simulator`.

    Raises:
        GPTDynamicsError: data or models are missing, damaged or do not fit each other.
    """
    runs = read_dynamics(settings.dataset, settings.config, settings.metric)
    held_out, training, validation = (runs.split(name) for name in ("test", "train", "validation"))
    models = [Simulated(load_simulator(source), source) for source in settings.models]
    for model in models:
        model.check(runs)
    mean_curve = MeanCurve(runs.split("train", "validation"))
    on_phase("simfluence", 1)
    methods: list[Predictor] = [Persistence(), mean_curve, SimfluenceLinear(training, validation)]
    on_progress()
    for wanted in _trained_here(settings, runs):
        trained = train_simulator(wanted, on_phase, on_progress, runs=runs)
        methods.append(Simulated(trained.model))
    methods += models
    history = max(method.history for method in methods)
    reference = mean_curve.predict(held_out)
    rows: list[Row] = []
    predictions: dict[str, np.ndarray] = {}
    for method, name in zip(methods, _unique_names(methods), strict=True):
        predicted = method.predict(held_out)
        predictions[name] = predicted
        rows.append(
            Row(
                method=name,
                model=method.model,
                config=settings.config,
                metric=settings.metric,
                split="test",
                coverage=None,
                runs=len(held_out.runs),
                examples=len(held_out.test),
                **asdict(score(predicted, held_out.values, reference, history)),
            )
        )
    return Evaluation(rows=rows, runs=held_out, predictions=predictions)
