"""`gptfluence validate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gptdynamics.commands.options import TaskFileOption, add_task_files, json_option
from gptdynamics.console import say, show
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases


def validate(
    model: Annotated[str, typer.Argument(help="A simulator, a folder or a Hub id.")],
    dataset: Annotated[str, typer.Option(help="The runs of its config, with texts.")],
    output: Annotated[Path, typer.Option(help="Folder for tables, figures and the page.")],
    run: Annotated[
        str | None, typer.Option(help="The run that is changed.", show_default="the first held-out one")
    ] = None,
    each: Annotated[int, typer.Option(help="Runs of each of the four kinds of change.")] = 10,
    share: Annotated[float, typer.Option(help="Of the run's examples that are left out or replaced.")] = 0.1,
    test_examples: Annotated[int, typer.Option(help="Test examples that are measured.")] = 50,
    measured: Annotated[int, typer.Option(help="Steps that are measured.")] = 9,
    seed: Annotated[int, typer.Option(help="Of the changes.")] = 0,
    config: Annotated[str | None, typer.Option(help="Which config, of a simulator of several.")] = None,
    metric: Annotated[str | None, typer.Option(help="Which metric, of a simulator of several.")] = None,
    task_file: TaskFileOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes, one thread each.", show_default="one a core")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")] = False,
    json_file: Annotated[
        Path | None,
        json_option(
            "what is in OUTPUT/validate.json: `rows` (figures by name), `notes`, `skipped`, `tables`, `figures`, "
            "`command`, `seconds`, `versions`; with --dry-run the counts that are printed."
        ),
    ] = None,
) -> None:
    """Check a simulator by real training: change a run in many ways, simulate the changes, train them, compare."""

    from gptdynamics.outputs import write_output_json
    from simulator.commands.repeat import repeating_command
    from simulator.reporting.result_files import Finished, result_record, write_result
    from simulator.reporting.tables import terminal_tables
    from simulator.use_cases.validate import ValidateSettings, trainings_of
    from simulator.use_cases.validate import validate as validate_model
    from simulator.use_cases.validate_report import validation_result

    add_task_files(task_file)
    settings = ValidateSettings(
        model, dataset, output, run, each, share, test_examples, measured, seed, workers, config, metric
    )
    if dry_run:
        count, updates, spent = trainings_of(settings)
        if json_file is not None:
            write_output_json(json_file, {"trainings": count, "updates": updates, "seconds": spent})
        say(
            f"{count} trainings of {updates} updates, {measured} measurements of {test_examples} examples each; about "
            f"{spent / 60:.1f} minutes of one core"
        )
        return
    keeps(f"finished trainings are kept in {output}")
    began = time.perf_counter()
    with phases() as (on_phase, on_progress):
        found = validate_model(settings, on_phase, on_progress)
    result = validation_result(found)
    command = repeating_command("validate", settings, ["model"])
    finished = Finished("validate", f"{found.config} {found.metric}: simulated and real runs", result, command,
                        time.perf_counter() - began)  # fmt: skip
    write_result(finished, output)
    if json_file is not None:
        write_output_json(json_file, result_record(finished))
    for table in terminal_tables(result):
        show(table)
    say(f"wrote {output / 'validate.html'}")
