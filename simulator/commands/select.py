"""`gptfluence select`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gptdynamics.commands.options import TaskFileOption, add_task_files, json_option
from gptdynamics.console import say, show
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases


def select(
    model: Annotated[str, typer.Argument(help="A simulator, a folder or a Hub id.")],
    dataset: Annotated[str, typer.Option(help="The runs of its config, with texts.")],
    output: Annotated[Path, typer.Option(help="Folder for the choices, tables, figures and the page.")],
    count: Annotated[int, typer.Option(help="How many training examples to choose.")] = 32,
    test_ids: Annotated[
        str | None, typer.Option(help="The target, e.g. 3,17.", show_default="every other test example")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each choice, in other orders.")] = 3,
    random: Annotated[int, typer.Option(help="Random choices to compare with, one training each.")] = 8,
    config: Annotated[str | None, typer.Option(help="Which config, of a simulator of several.")] = None,
    metric: Annotated[str | None, typer.Option(help="Which metric, of a simulator of several.")] = None,
    task_file: TaskFileOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes, one thread each.", show_default="one a core")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")] = False,
    json_file: Annotated[
        Path | None,
        json_option(
            "what is in OUTPUT/select.json: `rows` (figures by name), `notes`, `skipped`, `tables`, `figures`, "
            "`command`, `seconds`, `versions`; with --dry-run the counts that are printed."
        ),
    ] = None,
) -> None:
    """Choose training examples for a target test set, and see by real training what the choice is worth."""

    from gptdynamics.outputs import write_output_json
    from simulator.commands.ids import listed_ids
    from simulator.commands.repeat import repeating_command
    from simulator.reporting.result_files import Finished, result_record, write_result
    from simulator.reporting.tables import terminal_tables
    from simulator.use_cases.select import SelectSettings, trainings_of
    from simulator.use_cases.select import select as select_examples
    from simulator.use_cases.select_report import selection_result

    add_task_files(task_file)
    settings = SelectSettings(
        model, dataset, output, count, listed_ids(test_ids), seeds, random, workers, config, metric
    )
    if dry_run:
        trainings, updates, spent = trainings_of(settings)
        if json_file is not None:
            write_output_json(json_file, {"trainings": trainings, "updates": updates, "seconds": spent})
        say(f"{trainings} trainings of {updates} updates; about {spent / 60:.1f} minutes of one core")
        return
    keeps(f"finished trainings are kept in {output}")
    began = time.perf_counter()
    with phases() as (on_phase, on_progress):
        found = select_examples(settings, on_phase, on_progress)
    result = selection_result(found)
    command = repeating_command("select", settings, ["model"])
    title = f"{found.config}: training examples chosen for a target"
    finished = Finished("select", title, result, command, time.perf_counter() - began)
    write_result(finished, output)
    if json_file is not None:
        write_output_json(json_file, result_record(finished))
    for table in terminal_tables(result):
        show(table)
    say(f"wrote {output / 'select.html'}")
