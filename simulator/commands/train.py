"""`gptfluence train`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.train import TrainCommand

# With fewer, coefficients are mostly those that come with the package.
ENOUGH_RUNS = 4


def train(settings: TrainCommand, write_json: WriteJson) -> None:
    """Train a simulator on the training and validation runs of one config and metric, or of several.

    Markov goes on where a killed training with the same settings and output was.

    JSON: `output`, `seconds`, `encode_seconds` and `fits`, each with `config`, `metric`, `error` (all-steps MSE),
    `choice`, `tried`.
    """
    from simulator.training import train_and_save
    from simulator.training.fitting import fitter_named

    keeps("encodings, and fits of markov that ended, are kept")
    with phases() as (on_phase, on_progress):
        trained = train_and_save(settings.training, settings.output, settings.report_to, on_phase, on_progress)
    names = ("config", "metric", "error", "choice", "tried")
    fits = [{name: getattr(each, name) for name in names} for each in trained.fitted]
    spent = {"seconds": trained.seconds, "encode_seconds": trained.encode_seconds}
    write_json({"output": settings.output, **spent, "fits": fits})
    config = trained.model.config
    where = fitter_named(config.dynamics).checked_on[0]
    for each in trained.fitted:
        say(
            f"{each.config} {each.metric}: {config.dynamics}, {config.encoder.get('encoder')} vectors: all-steps MSE "
            f"{each.error:.4g} on {where}, best of {len(each.tried)} settings {each.choice}"
        )
    if 0 < config.fitted_runs < ENOUGH_RUNS:
        count = f"{config.fitted_runs} run{'s' if config.fitted_runs > 1 else ''}"
        say(
            f"it rests on {count} and on coefficients of our own releases: it ranks training examples; how large their "
            "effects are needs more runs"
        )
    say(f"fitted in {trained.seconds:.1f} s (encoding {trained.encode_seconds:.1f} s); saved in {settings.output}")
