"""`gptfluence mislabel`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from gptdynamics.commands.options import dry_run_option, json_option
from gptdynamics.console import say
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.commands.results import RESULTS_JSON, show_result
from simulator.settings.use_cases import MislabelSettings


def mislabel(
    settings: MislabelSettings,
    dry_run: Annotated[bool, dry_run_option("done")] = False,
    json_file: Annotated[
        Path | None,
        json_option(
            f"a list of rows as in OUTPUT/suspects.jsonl; with --flip what is in OUTPUT/mislabel.json: {RESULTS_JSON}"
        ),
    ] = None,
) -> None:
    """List the training examples whose labels look wrong; with --flip, see how many wrong ones that finds."""
    from gptdynamics.outputs import write_output_json
    from simulator.use_cases.mislabel import find_mislabels, plan_mislabels
    from simulator.use_cases.mislabel_report import mislabel_result, suspects, write_suspects

    if dry_run:
        plan = plan_mislabels(settings)
        if json_file is not None:
            write_output_json(json_file, plan)
        say(
            f"{plan.runs} runs of {plan.run_steps} updates to be made on {settings.rows} rows; "
            f"{plan.retrainings} trainings of {plan.whole_steps} updates after correction; about "
            f"{plan.seconds / 60:.0f} minutes of one core, and the fits of two simulators"
        )
        return
    keeps(f"finished trainings are kept in {settings.output}")
    began = time.perf_counter()
    with phases() as (on_phase, on_progress):
        found = find_mislabels(settings, on_phase, on_progress)
    for path in write_suspects(found, settings.by):
        say(f"wrote {path}")
    if settings.flip:
        show_result("mislabel", "Mislabelled examples", mislabel_result(found), settings, began, json_file)
    elif json_file is not None:
        write_output_json(json_file, suspects(found, settings.by))
