"""`gptfluence train`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, say_detail
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.train import TrainCommand

# With fewer, coefficients are mostly those that come with the package.
ENOUGH_RUNS = 4


def train(settings: TrainCommand, write_json: WriteJson) -> None:
    """Train a simulator on the training and validation runs of one config and metric, or of several.

    markov continues an interrupted training with the same settings and output.

    JSON: `output`, `seconds`, `encode_seconds` and `fits`, each with `config`, `metric`, `error` (all-steps MSE),
    `choice`, `tried`.
    """
    from simulator.model.kinds import kind_of
    from simulator.reporting.verdicts import counted, next_command, removed_text
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
        inputs = "kernels" if kind_of(config).has_kernels else f"{config.encoder.get('encoder')} vectors"
        about = f"{each.config} {each.metric}, {config.dynamics} with {inputs}, fitted on {counted(each.runs, 'run')}"
        say(f"{about}: {removed_text(each.removed, each.runs)}")
        say_detail(
            f"  mean squared error {each.error:.4g} on {where}, best of {len(each.tried)} settings {each.choice}"
        )
    if 0 < config.fitted_runs < ENOUGH_RUNS:
        say(
            f"it rests on {counted(config.fitted_runs, 'run')} and on coefficients of our own releases: it ranks "
            "training examples; how large their effects are needs more runs"
        )
    say(f"fitted in {trained.seconds:.1f} s (encoding {trained.encode_seconds:.1f} s); saved in {settings.output}")
    first = trained.fitted[0]
    if first.held_out:
        words = ("--config", first.config, "--metric", first.metric, "--models", settings.output)
        say(next_command("gptfluence", "evaluate", settings.dataset, *words))
    else:
        say(next_command("gptfluence", "influence", settings.dataset, "--model", settings.output))
