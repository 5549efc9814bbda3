"""`gptfluence mislabel`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gptdynamics.commands.options import json_option
from gptdynamics.console import say, show
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases


def mislabel(
    task: Annotated[str, typer.Argument(help="A task with labels, e.g. sst2.")],
    output: Annotated[Path, typer.Option(help="Folder for runs, suspects, figures; gone on with if it is there.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with <task>/train.jsonl and eval.jsonl. Default: bundled rows or the Hub."),
    ] = None,
    task_file: Annotated[
        list[Path] | None, typer.Option("--task-file", help="A Python file with tasks of your own. May be repeated.")
    ] = None,
    flip: Annotated[
        float,
        typer.Option(help="Make this share of the labels wrong first and see how many are found (paper: 0.4)."),
    ] = 0.0,
    base_model: Annotated[
        str, typer.Option(help="What is trained: nano, a Pythia size, a Hub id or a folder.")
    ] = "nano",
    rows: Annotated[int, typer.Option(help="Training rows to search.")] = 1000,
    runs: Annotated[int, typer.Option(help="Runs that the dynamics are made of.")] = 20,
    learning_rate: Annotated[float, typer.Option(help="At the first update.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Examples in an update.")] = 16,
    epochs: Annotated[int, typer.Option(help="Passes over the rows.")] = 3,
    retrainings: Annotated[int, typer.Option(help="With --flip: seeds of the trainings after correction.")] = 5,
    test_examples: Annotated[int, typer.Option(help="With --flip: test rows for the accuracy.")] = 872,
    by: Annotated[str, typer.Option(help="The score that orders the list of suspects.")] = "ridge_left_out",
    seed: Annotated[int, typer.Option(help="Of flips, curricula and shuffles.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes, one thread each.", show_default="one a core")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    json_file: Annotated[
        Path | None,
        json_option(
            "a list of rows as in OUTPUT/suspects.jsonl; with --flip what is in OUTPUT/mislabel.json: `rows` (figures "
            "by name), `notes`, `skipped`, `tables`, `figures`, `command`, `seconds`, `versions`; with --dry-run the "
            "counts that are printed."
        ),
    ] = None,
) -> None:
    """List the training examples whose labels look wrong; with --flip, see how many wrong ones that finds."""
    from gptdynamics.errors import SettingsError
    from simulator.use_cases.mislabel_rankings import SCORES

    if by not in SCORES:
        raise SettingsError(f"by={by!r} must be one of {', '.join(SCORES)}")

    from gptdynamics.outputs import write_output_json
    from gptdynamics.tasks.user_tasks import add_task_file
    from simulator.commands.repeat import repeating_command
    from simulator.reporting.result_files import Finished, result_record, write_result
    from simulator.reporting.tables import terminal_tables
    from simulator.use_cases.mislabel import MislabelSettings, find_mislabels, plan_mislabels
    from simulator.use_cases.mislabel_report import mislabel_result, suspects, write_suspects

    for path in task_file or ():
        add_task_file(path)
    settings = MislabelSettings(
        task, output, data, base_model, rows, flip, seed, learning_rate, batch_size, epochs, runs, retrainings,
        test_examples, workers,
    )  # fmt: skip
    if dry_run:
        plan = plan_mislabels(settings)
        if json_file is not None:
            write_output_json(json_file, plan)
        say(
            f"{plan.runs} runs of {plan.run_steps} updates to be made on {rows} rows; "
            f"{plan.retrainings} trainings of {plan.whole_steps} updates after correction; about "
            f"{plan.seconds / 60:.0f} minutes of one core, and the fits of two simulators"
        )
        return
    keeps(f"finished trainings are kept in {output}")
    began = time.perf_counter()
    with phases() as (on_phase, on_progress):
        found = find_mislabels(settings, on_phase, on_progress)
    for path in write_suspects(found, by):
        say(f"wrote {path}")
    if json_file is not None and not flip:
        write_output_json(json_file, suspects(found, by))
    if flip:
        result = mislabel_result(found)
        command = repeating_command("mislabel", settings, ["task"], {"by": by, "task_file": task_file})
        finished = Finished("mislabel", "Mislabelled examples", result, command, time.perf_counter() - began)
        write_result(finished, output)
        if json_file is not None:
            write_output_json(json_file, result_record(finished))
        for table in terminal_tables(result):
            show(table)
        say(f"wrote {output / 'mislabel.html'}")
