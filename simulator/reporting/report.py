"""The page that `report` writes: an evaluation, or the explorer."""

from __future__ import annotations

from collections.abc import Callable

from simulator.evaluation import EvaluateSettings, evaluate
from simulator.reporting.evaluation_page import report_evaluation
from simulator.reporting.explorer import view_trained_here, views_of, write_explorer
from simulator.reporting.prediction_figures import draw_trajectories
from simulator.settings.evaluate import ReportSettings


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
    evaluation = evaluate(scored, on_phase, on_progress)
    report_evaluation(evaluation, scored, settings.output)
    if settings.figure is not None:
        draw_trajectories(evaluation.runs, evaluation.predictions, settings.figure)
    return None
