"""Prints lines, tables and progress on a terminal, for both command lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gptdynamics.terminal_text import safe_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


class _Output:
    """Settings of the output: `to_stderr`, because standard output is for JSON; `details`, whether to print details."""

    to_stderr = False
    details = False


def reset_output() -> None:
    """Set the output as it is at the start of a process: on standard output, without details."""
    _Output.to_stderr = _Output.details = False


def print_beside_json(figures_on_stdout: bool) -> None:
    """Set whether standard output is for JSON; tables and messages then go to standard error."""
    _Output.to_stderr = figures_on_stdout


def show_details(enabled: bool) -> None:
    """Set whether `say_detail` prints."""
    _Output.details = enabled


def say_detail(text: str) -> None:
    """Print a line like `say`, but only with `--verbose`."""
    if _Output.details:
        say(text)


def say(text: str) -> None:
    """Print a line on standard output; control characters in it are escaped, see `safe_text`."""
    print(safe_text(text), file=sys.stderr if _Output.to_stderr else sys.stdout)


def say_error(text: str) -> None:
    """Print a line like `say`, but on standard error."""
    print(safe_text(text), file=sys.stderr)


def show(table: Table) -> None:
    """Print a table on standard output; its texts are not interpreted as markup, and numbers are not cut."""
    from rich.console import Console

    _show_on(Console(stderr=_Output.to_stderr, markup=False, emoji=False, highlight=False), table)


def table_text(table: Table, width: int = 80) -> str:
    """The output of `show` in a terminal of `width` columns, without colours."""
    from rich.console import Console

    console = Console(
        width=width, color_system=None, force_jupyter=False, force_terminal=False, markup=False, emoji=False
    )
    with console.capture() as captured:
        _show_on(console, table)
    return captured.get().rstrip()


def _show_on(console: Console, table: Table) -> None:
    from rich.segment import Segment, Segments

    from gptdynamics.terminal_tables import fit_to_width

    for part, width in fit_to_width(table, console.width):
        # A terminal that is narrower breaks the lines itself.
        options = console.options.update(max_width=max(console.width, width))
        segments = [
            segment if segment.control else Segment(safe_text(segment.text, one_line=False), segment.style)
            for segment in console.render(part, options)
        ]
        console.print(Segments(segments), end="", soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error: description, bar, count, time spent and time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Description(TextColumn):
        """The description, without markup and control characters."""

        def render(self, task: Task) -> Text:
            return Text(safe_text(task.description))

    with Progress(
        Description(""),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=Console(stderr=True),
    ) as progress:
        try:
            yield progress
        except BaseException:
            # Remove the bars, so that only the error remains visible.
            progress.live.transient = True
            raise


@contextmanager
def counted_runs() -> Iterator[Callable[[int, int], None]]:
    """A progress bar over runs; yields a function to call with the numbers of finished runs and of all runs."""
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
