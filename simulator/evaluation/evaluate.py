"""Every method on the held-out runs of one config and metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.dataset.gradient_reading import read_vectors
from gptdynamics.errors import GPTDynamicsError, SettingsError
from simulator.baselines import NotApplicableError, Persistence, Predictor, fit_baseline
from simulator.evaluation.evaluation import Evaluation
from simulator.evaluation.held_out import HeldOut, Unseen, hold_out
from simulator.evaluation.scoring import Method, score
from simulator.evaluation.simulated import Simulated, load_simulator, name_of, simulated_of
from simulator.settings.evaluate import EvaluateSettings
from simulator.training import TrainSettings, train_simulator
from simulator.training.reference_kernels import has_reference_kernels
from simulator.training.trained import Trained


def simulators_to_train(settings: EvaluateSettings, runs: Dynamics) -> list[TrainSettings]:
    """What is trained for the table: label-only vectors on label tasks, and everything where no model is given.

    Tangent is where a training run has recorded kernels.

    Examples without targets of their own, as imported ones may be, have neither label nor gradient vectors; where texts
    are withheld there are the gradient vectors of the release, or nothing but which example is which.
    """
    tangent = [("tangent", "gradient")] if has_reference_kernels(runs) else []
    if any(example.withheld for example in (*runs.pool, *runs.test)):
        stored = read_vectors(runs.source, runs.config) is not None
        kinds = [("markov", "gradient"), ("memory", "gradient")] if stored else [("markov", "index")]
        return [] if settings.models else _settings(settings, kinds + tangent)
    have_targets = all(example.target for example in runs.pool)
    kinds = [("memory", "label")] if have_targets and not runs.test[0].references else []
    if not settings.models:
        kinds = [("markov", "sentence"), *kinds, ("memory", "sentence")]
        kinds += [("memory", "gradient"), *tangent] if have_targets else tangent
    return _settings(settings, kinds)


def _settings(settings: EvaluateSettings, kinds: Sequence[tuple[str, str]]) -> list[TrainSettings]:
    return [
        TrainSettings(settings.dataset, settings.config, settings.metric, dynamics=dynamics, encoder=encoder)
        for dynamics, encoder in kinds
    ]


def unique_names(methods: Sequence[Predictor]) -> list[str]:
    """Names of the methods; where two are the same the model's folder is added, with its path if it must be."""
    names = [method.name for method in methods]
    for whole in (False, True):
        repeated = {name for name in names if names.count(name) > 1}
        for index, method in enumerate(methods):
            if names[index] in repeated and method.model:
                names[index] = f"{method.name} ({method.model if whole else Path(method.model).name})"
    return names


def evaluate(
    settings: EvaluateSettings,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
    train: Callable[[TrainSettings], Trained] | None = None,
    unseen: Unseen | None = None,
) -> Evaluation:
    """Score every method on the test runs, or on test examples or pool rows that no training run used.

    A method that the data do not allow, or whose encoder cannot be found, has a row with the reason and no scores.
    Of what training did not use, baselines other than persistence and the mean curve know nothing: they are left out.

    Args:
        settings: data and models.
        on_phase, on_progress: as in `train_simulator`.
        train: gives the simulators that are trained here; default: `train_simulator`.
        unseen: what is kept from training besides the test runs; default: what the settings say.

    Raises:
        SettingsError: the settings name several configs or metrics, a model was trained on test examples that should
            be unseen, or there is nothing unseen.
        GPTDynamicsError: data or given models are missing, damaged or do not fit each other.
    """
    unseen = unseen or Unseen(settings.unseen_tests, settings.split)
    runs = read_dynamics(settings.dataset, *settings.part)
    training, held_out = hold_out(runs, unseen)
    models = [simulated_of(load_simulator(source), source, held_out.runs) for source in settings.models]
    if unseen.unseen_tests:
        _check_unseen(models, held_out.runs)
    simulators: list[Simulated] = []
    untrained: list[Method] = []
    train = train or (lambda wanted: train_simulator(wanted, on_phase, on_progress, runs=training))
    for training_settings in _to_train(settings, training, unseen):
        try:
            trained = train(training_settings)
            simulators.append(Simulated(trained.model))
        except GPTDynamicsError as error:
            untrained.append(Method(name_of(training_settings, training_settings.encoder), None, note=str(error)))
    simulators += models
    history = max((method.history for method in simulators), default=1)
    if unseen.beyond_runs:
        baselines = [
            Method.of(Persistence(), held_out.runs, history),
            Method("mean_curve", held_out.reference),
        ]
    else:
        on_phase("baselines", len(settings.methods))
        baselines = [_baseline(name, training, held_out, history, on_progress) for name in settings.methods]
    methods = [
        *baselines,
        *(
            Method.of(method, held_out.runs, history, name)
            for name, method in zip(unique_names(simulators), simulators, strict=True)
        ),
        *untrained,
    ]
    rows = score(methods, held_out.runs, held_out.reference, history, unseen.split)
    predictions = {method.name: method.prediction for method in methods if method.prediction is not None}
    return Evaluation(rows=rows, runs=held_out.runs, predictions=predictions, history=history)


def _to_train(settings: EvaluateSettings, training: Dynamics, unseen: Unseen) -> list[TrainSettings]:
    if not unseen.beyond_runs:
        return simulators_to_train(settings, training)
    if settings.models:
        return []
    # A simulator that knows examples by their index alone cannot predict other ones.
    return [each for each in simulators_to_train(settings, training) if each.encoder != "index"]


def _check_unseen(models: Sequence[Simulated], runs: Dynamics) -> None:
    for method in models:
        count = int((method.simulator.places(runs.test) >= 0).sum())
        if count:
            raise SettingsError(
                f"{method.model} was trained on {count} of the {len(runs.test)} test examples kept back"
            )


def _baseline(
    name: str, training: Dynamics, held_out: HeldOut, history: int, on_progress: Callable[[], None]
) -> Method:
    try:
        predictor = fit_baseline(name, training.split("train", "validation"), history)
        return Method.of(predictor, held_out.runs, history)
    except NotApplicableError as error:
        return Method(name, None, note=str(error))
    finally:
        on_progress()
