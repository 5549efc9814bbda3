"""`gptfluence mislabel`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.options import command_line
from simulator.commands.results import run_use_case, show_result
from simulator.settings.use_cases import MislabelSettings


def mislabel(settings: MislabelSettings, dry_run: bool, write_json: WriteJson) -> None:
    """List the training examples whose labels look wrong; with --flip, see how many wrong ones that finds.

    JSON: a list of rows as in OUTPUT/suspects.jsonl; with --flip what is in OUTPUT/mislabel.json: `rows`
    (figures by name), `notes`, `skipped`, `tables`, `figures`, `command`, `seconds`, `versions`; with --dry-run the
    counts that are printed.
    """
    from gptdynamics.dataset.status import short_time
    from simulator.reporting.tables import terminal_tables
    from simulator.reporting.verdicts import next_command
    from simulator.use_cases.mislabel import find_mislabels, plan_mislabels
    from simulator.use_cases.mislabel_recorded import RecordedSearch
    from simulator.use_cases.mislabel_report import suspects, suspects_verdict, write_suspects
    from simulator.use_cases.mislabel_search import open_search

    search = open_search(settings)
    say(str(search))
    if dry_run:
        plan = plan_mislabels(search)
        write_json(plan)
        say(
            f"{plan.runs} runs of {plan.run_steps} updates to be made on {len(search.pool)} rows; "
            f"{plan.retrainings} trainings of {plan.whole_steps} updates after correction; about "
            f"{short_time(plan.seconds)} of one core"
        )
        return
    mislabels, seconds = run_use_case(lambda _, *on: find_mislabels(search, *on), settings)
    paths = write_suspects(mislabels)
    if settings.flip:
        show_result("mislabel", "Mislabelled examples", mislabels, settings, seconds, write_json)
    else:
        result = mislabels.result()
        for table in terminal_tables(result):
            show(table)
        write_json(suspects(mislabels))
    for path in paths:
        say(f"wrote {path}")
    if settings.flip:
        return
    say(suspects_verdict(mislabels))
    if isinstance(search, RecordedSearch):
        say(next_command("gptfluence", "influence", settings.dataset, "--config", search.runs.config))
    else:
        say("how many wrong labels such a list finds on these rows, with some made wrong on purpose:")
        words = command_line(
            "gptfluence", "mislabel", replace(settings, flip=0.2, output=Path(f"{settings.output}-flipped"))
        )
        say(f"next: {words}")
