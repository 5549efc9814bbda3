"""`gptfluence report`."""

from __future__ import annotations

from gptdynamics.console import say
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.evaluate import ReportSettings


def report(settings: ReportSettings) -> None:
    """Write one self-contained page: the table, and true against predicted trajectories; or the explorer."""
    keeps("encodings are kept, scores are not")
    if settings.interactive:
        _write_explorer(settings)
    else:
        _write_report(settings)


def _write_explorer(settings: ReportSettings) -> None:
    """Write the explorer of these simulators; of none, of a memory and a markov that are trained now."""
    from simulator.reporting.explorer import view_trained_here, views_of, write_explorer

    with phases() as (on_phase, on_progress):
        if settings.config is None or settings.models:
            views = views_of(settings.dataset, settings.models, settings.config)
        else:
            views = [view_trained_here(settings.dataset, settings.config, settings.metric, on_phase, on_progress)]
        size = write_explorer(settings.output, views, not settings.no_texts)
    say(f"wrote {settings.output}, {size / 2**20:.1f} MiB: open it in a browser")


def _write_report(settings: ReportSettings) -> None:
    from simulator.evaluation import EvaluateSettings, evaluate
    from simulator.reporting.evaluation_page import report_evaluation
    from simulator.reporting.prediction_figures import draw_trajectories

    scored = EvaluateSettings(settings.dataset, settings.config or "", settings.metric, settings.models)
    with phases() as (on_phase, on_progress):
        evaluation = evaluate(scored, on_phase, on_progress)
    report_evaluation(evaluation, scored, settings.output)
    say(f"wrote {settings.output}")
    if settings.figure is not None:
        draw_trajectories(evaluation.runs, evaluation.predictions, settings.figure)
        say(f"wrote {settings.figure}")
