"""`gptdynamics status`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.settings.datasets import StatusSettings


def status(settings: StatusSettings, write_json: WriteJson) -> None:
    """Show how far a collection is: runs done, running, failed and missing, and the time left.

    JSON: a list of configs: `config`, `planned`, `done`, `running`, `missing`, `extra`, `failed`, `splits`,
    `projecting`, `seconds`, `seconds_left`.
    """
    from gptdynamics.dataset.status import folder_status, status_notes, status_table
    from gptdynamics.plans import read_plan

    statuses = folder_status(settings.dataset, None if settings.plan is None else read_plan(settings.plan))
    write_json([each.to_dict() for each in statuses])
    show(status_table(statuses))
    for line in status_notes(statuses):
        say(line)
