"""The functions of `import simulator` that take what a notebook has: names, folders, simulators, settings as keywords.

Each makes the settings that the command of the same name is given, and calls what that command calls. A simulator may
be given as a folder, a Hub id, or the object itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdynamics.keywords import settings_of, takes_fields_of
from simulator.settings.evaluate import EvaluateSettings, ReportSettings
from simulator.settings.train import TrainCommand, TrainSettings
from simulator.settings.use_cases import InfluenceSettings, MislabelSettings, SelectSettings, ValidateSettings

if TYPE_CHECKING:
    from gptdynamics.recorder.retraining import Recipe
    from simulator.evaluation import Evaluation
    from simulator.model.modeling_gptfluence import GPTfluenceSimulator
    from simulator.model.what_if import WhatIf
    from simulator.training.trained import Trained
    from simulator.use_cases.influence import InfluenceResult
    from simulator.use_cases.mislabel import Mislabels
    from simulator.use_cases.select import Selection
    from simulator.use_cases.validate import Validation

    Dataset = str | PathLike[str]
    Folder = str | PathLike[str]
    Model = str | PathLike[str] | GPTfluenceSimulator

OnPhase = Callable[[str, int], None]
OnProgress = Callable[[], None]


def _no_phase(name: str, total: int) -> None:
    """Say nothing of a phase."""


def _no_progress() -> None:
    """Say nothing of progress."""


@takes_fields_of(TrainCommand)
def train(
    dataset: Dataset,
    config: str | Sequence[str],
    metric: str | Sequence[str] = "loss",
    *,
    output: Folder | None = None,
    on_phase: OnPhase = _no_phase,
    on_progress: OnProgress = _no_progress,
    **settings: Any,
) -> Trained:
    """Train a simulator on the training and validation runs of a config and metric, or of several together.

    Without `output` it is returned, and not saved.

    Returns:
        The simulator as `.model`, and how it was fitted.

    Raises:
        GPTDynamicsError: the data are missing, damaged or too few, or a setting does not fit.

    Example:
        >>> from simulator import train
        >>> trained = train("gptdynamics", "mini_sentiment_nano", encoder="label", bands=False)
        >>> run = [[0, 1, 2, 3]] * 96  # training examples in each batch
        >>> trained.model.simulate(run).shape  # test examples, steps + 1
        torch.Size([50, 97])
    """
    from simulator.training.train import train_and_save, train_simulator

    given = settings | {"dataset": dataset, "config": config, "metric": metric}
    if output is None:
        return train_simulator(settings_of(TrainSettings, **given), on_phase, on_progress)
    options = settings_of(TrainCommand, **given, output=output)
    return train_and_save(options.training, options.output, options.report_to, on_phase, on_progress)


@takes_fields_of(EvaluateSettings)
def evaluate(
    dataset: Dataset,
    config: str,
    metric: str = "loss",
    *,
    models: Model | Sequence[Model] = (),
    on_phase: OnPhase = _no_phase,
    on_progress: OnProgress = _no_progress,
    **settings: Any,
) -> Evaluation:
    """Score simulators and baselines on the held-out runs of a config and metric. Models may be objects, too.

    Raises:
        GPTDynamicsError: data or models are missing, damaged or do not fit each other.

    Example:
        >>> from simulator import evaluate, train
        >>> model = train("gptdynamics", "mini_sentiment_nano", encoder="gradient", bands=False).model
        >>> scores = evaluate("gptdynamics", "mini_sentiment_nano", models=model, baselines="mean_curve")
        >>> scores.to_pandas().method.tolist()  # labels alone belong into every table of a label task
        ['mean_curve', 'memory_label', 'memory_gradient']
    """
    from simulator.evaluation.evaluate import evaluate as evaluate_methods

    given = settings | {"dataset": dataset, "config": config, "metric": metric, "models": _named_all(models)}
    return evaluate_methods(settings_of(EvaluateSettings, **given), on_phase, on_progress)


@takes_fields_of(ReportSettings)
def report(
    dataset: Dataset,
    output: Folder,
    *,
    models: Model | Sequence[Model] = (),
    on_phase: OnPhase = _no_phase,
    on_progress: OnProgress = _no_progress,
    **settings: Any,
) -> Path:
    """Write one self-contained page: scores, and true against predicted trajectories; or the interactive explorer.

    Models may be objects, too.

    Returns:
        The page.

    Raises:
        GPTDynamicsError: data or models are missing, damaged or do not fit each other, or the page cannot be written.

    Example:
        >>> import tempfile
        >>> from simulator import report, train
        >>> model = train("gptdynamics", "mini_sentiment_nano", encoder="label", bands=False).model
        >>> page = tempfile.mkdtemp() + "/explorer.html"
        >>> report("gptdynamics", page, models=model, interactive=True).name
        'explorer.html'
    """
    from simulator.reporting.report import write_report

    given = settings | {"dataset": dataset, "output": output, "models": _named_all(models)}
    options = settings_of(ReportSettings, **given)
    write_report(options, on_phase, on_progress)
    return options.output


@takes_fields_of(InfluenceSettings)
def influence(
    dataset: Dataset, config: str | None = None, *, model: Model | None = None, **settings: Any
) -> InfluenceResult:
    """The effect of every training example of a run on its test examples, by simulating the run without each.

    The model may be an object, too; without one, it is trained on the runs and kept beside them.

    Raises:
        GPTDynamicsError: model and dataset do not fit each other, or the run or a test example is unknown.

    Example:
        >>> from simulator import influence, train
        >>> model = train("gptdynamics", "mini_sentiment_nano", encoder="label", bands=False).model
        >>> effects = influence("gptdynamics", model=model, run="0004")
        >>> helped = effects.helped()[0]  # below zero: with it the final loss is lower
        >>> helped.final < 0
        True
        >>> list(effects.to_pandas().columns)
        ['pool_id', 'test_id', 'final', 'whole', 'error']
    """
    from simulator.use_cases.influence import find_influence
    from simulator.use_cases.influence_report import write_influence_page
    from simulator.use_cases.own_simulator import with_simulator

    given = settings_of(
        InfluenceSettings, **settings, dataset=dataset, config=config, model=None if model is None else _named(model)
    )
    options = with_simulator(given)
    effects = find_influence(options)
    if options.output is not None:
        write_influence_page(effects, options.output)
    return effects


def what_if(
    dataset: Dataset,
    config: str | None = None,
    *,
    model: Model | None = None,
    run: str | None = None,
    metric: str | None = None,
) -> WhatIf:
    """A recorded run, to be changed and simulated.

    Args:
        dataset: runs: a dataset folder, a Hub id, or `gptdynamics`.
        config: which config, of a simulator of several.
        model: the simulator; default: trained on the runs, and kept beside them.
        run: a recorded run, e.g. `0004`; default: the first held-out run.
        metric: which metric, of a simulator of several.

    Raises:
        GPTDynamicsError: model and dataset do not fit each other, or there is no such run.

    Example:
        >>> from simulator import train, what_if
        >>> model = train("gptdynamics", "mini_sentiment_nano", encoder="label", bands=False).model
        >>> run = what_if("gptdynamics", model=model, run="0004")
        >>> change = run.drop(run.curriculum[0][:1]).simulate() - run.simulate()
        >>> print(repr(change).splitlines()[0])
        change of loss (nats per token) of mini_sentiment_nano: 50 test examples, steps 0 to 96
    """
    from simulator.use_cases.case import load_case
    from simulator.use_cases.own_simulator import own_simulator

    named = own_simulator(str(dataset), config, metric)[0] if model is None else _named(model)
    case = load_case(named, str(dataset), config, metric)
    started: WhatIf = case.model.what_if(case.run(run))
    return started


@takes_fields_of(MislabelSettings)
def mislabel(
    dataset: Dataset,
    output: Folder,
    *,
    on_phase: OnPhase = _no_phase,
    on_progress: OnProgress = _no_progress,
    **settings: Any,
) -> Mislabels:
    """Score every training row by how wrong its label seems. It trains the base model many times.

    `dataset` is a dataset folder or a Hub id, with `config` where it has several; or a label task, whose rows are read.
    Recorded runs are searched by what was recorded, and nothing is trained.

    Raises:
        GPTDynamicsError: rows or base model are missing, a training diverged, or nothing recorded speaks of labels.

    Example:
        >>> import tempfile
        >>> from simulator import mislabel
        >>> suspects = mislabel(  # minutes
        ...     "mini_sentiment", tempfile.mkdtemp(), rows=32, batch_size=8, epochs=1, runs=6
        ... )  # doctest: +SKIP
        >>> len(suspects.ranking())  # doctest: +SKIP
        32
    """
    from simulator.use_cases.mislabel import find_mislabels
    from simulator.use_cases.mislabel_search import open_search

    options = settings_of(MislabelSettings, **settings, dataset=dataset, output=output)
    return find_mislabels(open_search(options), on_phase, on_progress)


@takes_fields_of(SelectSettings)
def select(
    dataset: Dataset,
    output: Folder,
    *,
    model: Model | None = None,
    on_phase: OnPhase = _no_phase,
    on_progress: OnProgress = _no_progress,
    recipe: Recipe | None = None,
    **settings: Any,
) -> Selection:
    """Choose training examples for target test examples, and train on each choice to see what it is worth.

    Recorded runs are made again by a `recipe`, as of `validate`.

    The model may be an object, too; without one, it is trained on the runs and kept beside them.

    Raises:
        GPTDynamicsError: model, dataset and settings do not fit each other, or a training diverged.

    Example:
        >>> import tempfile
        >>> from simulator import select, train
        >>> model = train("gptdynamics", "mini_sentiment_nano", encoder="label", bands=False).model
        >>> chosen = select(  # half a minute
        ...     "gptdynamics", tempfile.mkdtemp(), model=model, count=8, seeds=1, random=2, workers=1
        ... )  # doctest: +SKIP
        >>> len(chosen.choices["greedy"][0])  # doctest: +SKIP
        8
    """
    from simulator.use_cases.own_simulator import with_simulator
    from simulator.use_cases.recipe_trials import check_trainable
    from simulator.use_cases.select import select as select_examples

    given = settings_of(
        SelectSettings, **settings, dataset=dataset, output=output, model=None if model is None else _named(model)
    )
    check = partial(check_trainable, recipe=recipe, function="select")
    options = with_simulator(given, on_phase=on_phase, on_progress=on_progress, check=check)
    return select_examples(options, on_phase, on_progress, recipe)


@takes_fields_of(ValidateSettings)
def validate(
    dataset: Dataset,
    output: Folder,
    *,
    model: Model | None = None,
    on_phase: OnPhase = _no_phase,
    on_progress: OnProgress = _no_progress,
    recipe: Recipe | None = None,
    **settings: Any,
) -> Validation:
    """Check a simulator by real training: change a run in many ways, simulate the changes, train them, compare.

    Recorded runs are made again by a `recipe`: a function that is given batches, as lists of places in the pool, trains
    a fresh model on them, and records that as the first run was recorded. See docs/how-to/record-training.md.

    The model may be an object, too; without one, it is trained on the runs and kept beside them.

    Raises:
        GPTDynamicsError: model, dataset and settings do not fit each other, or a training diverged.

    Example:
        >>> import tempfile
        >>> from simulator import train, validate
        >>> model = train("gptdynamics", "mini_sentiment_nano", encoder="label", bands=False).model
        >>> checked = validate(  # half a minute
        ...     "gptdynamics", tempfile.mkdtemp(), model=model, each=3, test_examples=4, measured=2, workers=1
        ... )  # doctest: +SKIP
        >>> checked.truth.shape  # runs, test examples, steps  # doctest: +SKIP
        (12, 4, 2)
    """
    from simulator.use_cases.own_simulator import with_simulator
    from simulator.use_cases.recipe_trials import check_trainable
    from simulator.use_cases.validate import validate as validate_simulator

    given = settings_of(
        ValidateSettings, **settings, dataset=dataset, output=output, model=None if model is None else _named(model)
    )
    check = partial(check_trainable, recipe=recipe, function="validate")
    options = with_simulator(given, on_phase=on_phase, on_progress=on_progress, check=check)
    return validate_simulator(options, on_phase, on_progress, recipe)


def _named(model: Any, name: str = "in memory") -> str:
    """A simulator as settings name it: a folder or a Hub id, or a name that still holds the object."""
    if isinstance(model, str | PathLike):
        return str(model)
    from simulator.evaluation.simulated import OpenSimulator

    return OpenSimulator.of(model, name)


def _named_all(models: Any) -> list[str]:
    if isinstance(models, list | tuple):
        return [_named(each, f"in memory {number}") for number, each in enumerate(models, start=1)]
    return [_named(models)]
