"""`gptdynamics status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gptdynamics.commands.options import json_option
from gptdynamics.console import say, show
from gptdynamics.outputs import write_output_json
from gptdynamics.settings.datasets import StatusSettings


def status(
    settings: StatusSettings,
    json_file: Annotated[
        Path | None,
        json_option(
            "a list of configs: `config`, `planned`, `done`, `running`, `missing`, `extra`, `failed`, `splits`, "
            "`projecting`, `seconds`, `seconds_left`."
        ),
    ] = None,
) -> None:
    """Show how far a collection is: runs done, running, failed and missing, and the time left."""
    from gptdynamics.dataset.status import folder_status, status_notes, status_table
    from gptdynamics.plans import read_plan

    statuses = folder_status(settings.dataset, None if settings.plan is None else read_plan(settings.plan))
    if json_file is not None:
        write_output_json(json_file, [each.to_dict() for each in statuses])
    show(status_table(statuses))
    for line in status_notes(statuses):
        say(line)
