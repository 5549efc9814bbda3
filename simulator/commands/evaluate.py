"""`gptfluence evaluate`."""

from __future__ import annotations

from dataclasses import replace

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.evaluate import EvaluateSettings


def evaluate(settings: EvaluateSettings, write_json: WriteJson) -> None:
    """Score every method on held-out runs, separately for each config and metric.

    JSON: a list of rows: `method`, `model`, `config`, `metric`, `split`, `mse`, `mse_std`, `mae`, `mae_std`,
    `spearman`, `spearman_std`, `skill`, `coverage`, `runs`, `examples`, ...; null where undefined.
    """
    from simulator.evaluation import evaluate as evaluate_methods
    from simulator.reporting.tables import rows_table
    from simulator.reporting.verdicts import COLUMNS_MEAN, evaluation_verdict, next_command
    from simulator.training.parts import groups_of

    keeps("encodings are kept, scores are not")
    rows = []
    for config, metric in groups_of(settings.dataset, settings.configs, settings.metrics):
        part = replace(settings, config=config, metric=metric)
        with phases() as (on_phase, on_progress):
            evaluation = evaluate_methods(part, on_phase, on_progress)
        show(rows_table(evaluation.rows))
        say(evaluation_verdict(evaluation.rows))
        rows += evaluation.rows
    say(COLUMNS_MEAN)
    write_json(rows)
    words = ("--model", settings.models[0]) if settings.models else ()
    say(next_command("gptfluence", "influence", settings.dataset, *words))
