"""The results of a use case: written into their folder, beside the command that repeats them, and shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.options import command_line

if TYPE_CHECKING:
    from simulator.reporting.result import Result


def show_result(name: str, title: str, result: Result, settings: Any, began: float, write_json: WriteJson) -> None:
    """Write a result into its folder, and as JSON where that is asked for; show its tables.

    Args:
        name: of the command, and of the files.
        title: of the page.
        result: what there is to show.
        settings: what it was made with.
        began: `time.perf_counter()` before the work.
        write_json: writes the record of the result where it is asked for.
    """
    from simulator.reporting.result_files import Finished, result_record, write_result
    from simulator.reporting.tables import terminal_tables

    command = command_line("gptfluence", name, settings)
    finished = Finished(name, title, result, command, time.perf_counter() - began)
    write_result(finished, settings.output)
    write_json(result_record(finished))
    for table in terminal_tables(result):
        show(table)
    say(f"wrote {settings.output / f'{name}.html'}")
