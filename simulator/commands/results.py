"""Runs a use case: its work with progress bars, its result as files, JSON and tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.interruption import keeps
from gptdynamics.options import command_line
from simulator.commands.phases import phases

if TYPE_CHECKING:
    from simulator.reporting.notebook_result import NotebookResult

Returned = TypeVar("Returned")


def simulator_for(settings: Any, retrains: str | None = None) -> Any:
    """The settings of a use case with its dataset and a simulator; one that is trained here, and where, is said.

    Args:
        settings: of the use case.
        retrains: its name if it makes runs again; runs with which it cannot are refused before one is trained.
    """
    from simulator.use_cases.case import dataset_of
    from simulator.use_cases.own_simulator import with_simulator
    from simulator.use_cases.recipe_trials import check_trainable

    settings = replace(settings, dataset=dataset_of(settings.model, settings.dataset))
    if settings.model is not None:
        return settings
    with phases() as (on_phase, on_progress):
        notes: list[str] = []
        options = {} if retrains is None else {"check": partial(check_trainable, recipe=None, function=retrains)}
        complete = with_simulator(settings, notes.append, on_phase, on_progress, **options)
    for note in notes:
        say(note)
    return complete


def say_how_to_validate(settings: Any, output: Path | str) -> None:
    """Name the command that compares a simulator with real training; `settings` are those of `simulator_for`."""
    from simulator.reporting.verdicts import next_command

    say("how far to believe the simulator, by real training:")
    say(next_command("gptfluence", "validate", settings.dataset, "--model", settings.model, "--output", output))


def run_use_case(work: Callable[..., Returned], settings: Any) -> tuple[Returned, float]:
    """Call `work(settings, on_phase, on_progress)` with progress bars; what it returns, and seconds."""
    keeps(f"finished trainings are kept in {settings.output}")
    began = time.perf_counter()
    with phases() as (on_phase, on_progress):
        returned = work(settings, on_phase, on_progress)
    return returned, time.perf_counter() - began


def show_result(
    name: str, title: str, shown: NotebookResult, settings: Any, seconds: float, write_json: WriteJson
) -> None:
    """Write a result and its HTML page into its folder, and JSON where that is asked for; show its tables.

    Args:
        name: of the command, and of the files.
        title: of the page.
        shown: what the use case returned.
        settings: what it was made with; `output` is the folder.
        seconds: that it took.
        write_json: gets the record of the result.
    """
    from simulator.reporting.result_files import Finished, write_result, write_result_page
    from simulator.reporting.tables import terminal_tables

    result = shown.result()
    finished = Finished(name, title, result, command_line("gptfluence", name, settings), seconds)
    shown_too = {
        "tables": [asdict(table) for table in result.tables],
        "figures": [asdict(each) for each in result.figures],
    }
    record = write_result(finished, settings.output, **shown_too)
    page = settings.output / f"{name}.html"
    write_result_page(page, finished)
    write_json(record)
    for table in terminal_tables(result):
        show(table)
    say(f"wrote {page}")
