"""`gptfluence train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gptdynamics.commands.options import json_option
from gptdynamics.console import say
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.train import TrainCommand


def train(
    settings: TrainCommand,
    json_file: Annotated[
        Path | None,
        json_option(
            "`output`, `seconds`, `encode_seconds` and `fits`, each with `config`, `metric`, `error` (all-steps MSE), "
            "`choice`, `tried`."
        ),
    ] = None,
) -> None:
    """Train a simulator on the training and validation runs of one config and metric, or of several.

    Markov goes on where a killed training with the same settings and output was.
    """
    from gptdynamics.outputs import write_output_json
    from simulator.training import train_and_save

    keeps("encodings, and fits of markov that ended, are kept")
    with phases() as (on_phase, on_progress):
        trained = train_and_save(settings.training, settings.output, settings.report_to, on_phase, on_progress)
    if json_file is not None:
        fits = [
            {name: getattr(each, name) for name in ("config", "metric", "error", "choice", "tried")}
            for each in trained.fitted
        ]
        spent = {"seconds": trained.seconds, "encode_seconds": trained.encode_seconds}
        write_output_json(json_file, {"output": settings.output, **spent, "fits": fits})
    where = "runs left out" if settings.dynamics == "memory" else "validation runs"
    for each in trained.fitted:
        say(
            f"{each.config} {each.metric}: {settings.dynamics}, {settings.encoder} vectors: all-steps MSE "
            f"{each.error:.4g} on {where}, best of {len(each.tried)} settings {each.choice}"
        )
    say(f"fitted in {trained.seconds:.1f} s (encoding {trained.encode_seconds:.1f} s); saved in {settings.output}")
