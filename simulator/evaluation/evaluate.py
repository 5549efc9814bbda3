"""Every method on the held-out runs of one config and metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.dataset.gradient_reading import read_vectors
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.outputs import write_output_json
from simulator.baselines import BASELINES, SLOW, MeanCurve, NotApplicableError, Predictor, fit_baseline
from simulator.evaluation.scoring import Row, score, undefined
from simulator.evaluation.simulated import Simulated, load_simulator, name_of, simulated_of
from simulator.evaluation.table import table_text
from simulator.intervals import Coverage
from simulator.training import TrainSettings, train_simulator
from simulator.training.trained import Trained


@dataclass(frozen=True)
class EvaluateSettings:
    """What one `evaluate` does.

    Attributes:
        dataset: folder or Hub id.
        config: `<task>_<size>`.
        metric: what is compared.
        models: simulators to score; none: markov and memory are trained here with each encoder.
        baselines: names of `simulator.baselines.BASELINES`.
    """

    dataset: str
    config: str
    metric: str = "loss"
    models: tuple[str, ...] = ()
    baselines: tuple[str, ...] = tuple(name for name in BASELINES if name not in SLOW)

    def __post_init__(self) -> None:
        unknown = [name for name in self.baselines if name not in BASELINES]
        if unknown:
            raise SettingsError(f"no baseline {unknown[0]!r}; there are: {', '.join(BASELINES)}")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Rows of the table, and what they were computed from.

    Attributes:
        rows: one for each method.
        runs: the held-out runs.
        predictions: `[R, S, M]` by method.
        history: first values that are not scored, the longest history of any method.
    """

    rows: list[Row]
    runs: Dynamics
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    history: int = 1

    def write_json(self, path: Path) -> None:
        """Write the rows as a JSON list."""
        write_rows(self.rows, path)

    def to_pandas(self) -> Any:
        """The rows as a `DataFrame`."""
        import pandas

        return pandas.DataFrame([asdict(row) for row in self.rows])

    def plot(self, run: str | None = None, test_id: int | None = None) -> Any:
        """The error of each method at each step, or one trajectory; see `simulator.report.plot_evaluation`."""
        from simulator.report import plot_evaluation

        return plot_evaluation(self, run, test_id)

    def __repr__(self) -> str:
        return table_text(self.rows)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows, of one evaluation or several, as a JSON list."""
    write_output_json(path, [asdict(row) for row in rows])


def trained_here(settings: EvaluateSettings, runs: Dynamics) -> list[TrainSettings]:
    """What is trained for the table: label-only vectors on label tasks, and everything where no model is given.

    Examples without targets of their own, as imported ones may be, have neither label nor gradient vectors; where texts
    are withheld there are the gradient vectors of the release, or nothing but which example is which.
    """
    if any(example.withheld for example in (*runs.pool, *runs.test)):
        stored = read_vectors(runs.source, runs.config) is not None
        wanted = [("markov", "gradient"), ("memory", "gradient")] if stored else [("markov", "index")]
        return [] if settings.models else _settings(settings, wanted)
    known = all(example.target for example in runs.pool)
    wanted = [("memory", "label")] if known and not runs.test[0].references else []
    if not settings.models:
        wanted = [("markov", "sentence"), *wanted, ("memory", "sentence")]
        wanted += [("memory", "gradient")] if known else []
    return _settings(settings, wanted)


def _settings(settings: EvaluateSettings, wanted: Sequence[tuple[str, str]]) -> list[TrainSettings]:
    return [
        TrainSettings(settings.dataset, settings.config, settings.metric, dynamics=dynamics, encoder=encoder)
        for dynamics, encoder in wanted
    ]


def unique_names(methods: Sequence[Predictor]) -> list[str]:
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
    train: Callable[[TrainSettings], Trained] | None = None,
) -> Evaluation:
    """Score every method on the test runs.

    A method that the data do not allow, or whose encoder cannot be found, has a row with the reason and no figures.

    Args:
        settings: data and models.
        on_phase, on_progress: as in `train_simulator`.
        train: gives the simulators that are trained here; default: `train_simulator`.

    Raises:
        GPTDynamicsError: data or given models are missing, damaged or do not fit each other.
    """
    runs = read_dynamics(settings.dataset, settings.config, settings.metric)
    held_out, seen = runs.split("test"), runs.split("train", "validation")
    models = [simulated_of(load_simulator(source), source, runs) for source in settings.models]
    simulators: list[Simulated] = []
    impossible: dict[str, str] = {}
    for wanted in trained_here(settings, runs):
        try:
            trained = train(wanted) if train else train_simulator(wanted, on_phase, on_progress, runs=runs)
            simulators.append(Simulated(trained.model))
        except GPTDynamicsError as error:
            impossible[name_of(wanted, wanted.encoder)] = str(error)
    simulators += models
    history = max((method.history for method in simulators), default=1)
    on_phase("baselines", len(settings.baselines))
    reference = MeanCurve(seen).predict(held_out)
    rows: list[Row] = []
    predictions: dict[str, np.ndarray] = {}

    def add(name: str, note: str | None = None, model: str | None = None, covered: Coverage | None = None) -> None:
        found = predictions.get(name)
        truth = held_out.values
        figures = undefined(truth, history) if found is None else score(found, truth, reference, history)
        row = Row(
            method=name,
            model=model,
            config=settings.config,
            metric=settings.metric,
            split="test",
            coverage=covered.share if covered else None,
            coverage_uncertainty=covered.uncertainty if covered else None,
            runs=len(held_out.runs),
            examples=len(held_out.test),
            note=note,
            **asdict(figures),
        )
        rows.append(row)

    for name in settings.baselines:
        note = None
        try:
            predictions[name] = fit_baseline(name, seen, history).predict(held_out)
        except NotApplicableError as error:
            note = str(error)
        add(name, note)
        on_progress()
    for method, name in zip(simulators, unique_names(simulators), strict=True):
        predictions[name] = method.predict(held_out)
        add(name, None, method.model, method.coverage(held_out, history))
    for name, reason in impossible.items():
        add(name, reason)
    return Evaluation(rows=rows, runs=held_out, predictions=predictions, history=history)
