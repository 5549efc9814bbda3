"""`gptdynamics verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptdynamics.commands.options import json_option
from gptdynamics.console import counted_runs, say, say_error
from gptdynamics.outputs import write_output_json
from gptdynamics.settings.datasets import VerifySettings


def verify(
    settings: VerifySettings,
    json_file: Annotated[
        Path | None,
        json_option(
            "`source`, `ok`, `configs`, `runs`, `rows`, `missing`, `failed`, `running` and `faults`, each with `file`, "
            "`where`, `what`, `remedy`."
        ),
    ] = None,
) -> None:
    """Check every file of a dataset against its settings, and name all that is wrong."""
    from gptdynamics.dataset.verify import verify as verify_dataset

    with counted_runs() as on_run:
        checked = verify_dataset(settings.dataset, on_run)
    if json_file is not None:
        write_output_json(json_file, checked.to_dict())
    for line in checked.summary():
        say(line)
    for fault in checked.faults:
        say_error(f"error: {fault}")
    if not checked.ok:
        raise typer.Exit(1)
