"""`gptdynamics verify`."""

from __future__ import annotations

import sys

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import counted_runs, say, say_error
from gptdynamics.settings.datasets import VerifySettings


def verify(settings: VerifySettings, write_json: WriteJson) -> None:
    """Check every file of a dataset against its settings, and name all that is wrong.

    JSON: `source`, `ok`, `configs`, `runs`, `rows`, `missing`, `failed`, `running` and `faults`, each with `file`,
    `where`, `what`, `remedy`.
    """
    from gptdynamics.dataset.verify import verify as verify_dataset

    with counted_runs() as on_run:
        checked = verify_dataset(settings.dataset, on_run)
    write_json(checked.to_dict())
    for line in checked.summary():
        say(line)
    for fault in checked.faults:
        say_error(f"error: {fault}")
    if not checked.ok:
        sys.exit(1)
