"""The page that `report` writes: an evaluation, or the explorer."""

from __future__ import annotations

from collections.abc import Callable

from simulator.evaluation import EvaluateSettings, Evaluation, evaluate
from simulator.evaluation.simulated import Simulated, load_simulator, simulated_of
from simulator.experiments import Workbench
from simulator.experiments.counterfactuals import METRIC, has_retrainings, retraining_rows, retraining_table
from simulator.reporting.evaluation_page import report_evaluation
from simulator.reporting.explorer import view_trained_here, views_of, write_explorer
from simulator.reporting.prediction_figures import draw_trajectories
from simulator.reporting.result import Table
from simulator.settings.evaluate import ReportSettings
from simulator.training import TrainSettings, train_simulator
from simulator.training.trained import Trained


def write_report(
    settings: ReportSettings, on_phase: Callable[[str, int], None], on_progress: Callable[[], None]
) -> int | None:
    """Write the page, and the picture that is asked for.

    The explorer shows these simulators; of none, a memory and a markov that are trained now.

    Returns:
        Bytes of the explorer; None for the page of an evaluation.

    Raises:
        GPTDynamicsError: data or models are missing, damaged or do not fit each other, or a file cannot be written.
    """
    if settings.interactive:
        if settings.config is None or settings.models:
            views = views_of(settings.dataset, settings.models, settings.config)
        else:
            views = [view_trained_here(settings.dataset, settings.config, settings.metric, on_phase, on_progress)]
        return write_explorer(settings.output, views, not settings.no_texts)
    scored = EvaluateSettings(settings.dataset, settings.config or "", settings.metric, settings.models)
    simulators: dict[TrainSettings, Trained] = {}

    def train(wanted: TrainSettings) -> Trained:
        if wanted not in simulators:
            simulators[wanted] = train_simulator(wanted, on_phase, on_progress)
        return simulators[wanted]

    evaluation = evaluate(scored, on_phase, on_progress, train)
    bench = Workbench(evaluation.runs.source, scored.configs, on_phase, on_progress)
    again = _retrainings(bench, scored, [Simulated(trained.model) for trained in simulators.values()], evaluation)
    report_evaluation(evaluation, scored, settings.output, again)
    if settings.figure is not None:
        draw_trajectories(evaluation.runs, evaluation.predictions, settings.figure)
    return None


def _retrainings(
    bench: Workbench, settings: EvaluateSettings, trained: list[Simulated], evaluation: Evaluation
) -> list[Table]:
    """How the simulators of the page rank runs made again with rows left out; empty where there are none."""
    config, metric = settings.part
    if metric != METRIC or not has_retrainings(bench, config):
        return []
    given = [simulated_of(load_simulator(source), source, evaluation.runs) for source in settings.models]
    rows, _ = retraining_rows(bench, config, [*trained, *given])
    return [retraining_table(config, rows)] if rows else []
