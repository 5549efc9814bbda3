"""Shared by both command lines: running and ending a command, and printing to a terminal."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.errors import GPTDynamicsError
from gptdynamics.interruption import STATUS, end_process, interruptible
from gptdynamics.terminal_text import safe_text

if TYPE_CHECKING:
    import typer
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


# Longer words of a name or a text may be broken.
_LONGEST_WORD = 20


class _Output:
    """Settings of the output: `to_stderr`, because standard output is for JSON; `details`, whether to print details."""

    to_stderr = False
    details = False


def run_app(app: typer.Typer, arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run a command line; a GPTDynamicsError becomes one line on standard error and exit status 1.

    An interruption (Ctrl-C) becomes one line, too: what is kept, and the command that continues; the status is 130.

    Args:
        app: the command line.
        arguments, name: of the command. Default: those of the process.
    """
    _quiet_libraries()
    for stream in ("stdout", "stderr"):
        # The parent process may have closed it.
        if getattr(sys, stream) is None:
            setattr(sys, stream, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    _Output.to_stderr = _Output.details = False
    words = sys.argv[1:] if arguments is None else arguments
    with interruptible([name or Path(sys.argv[0]).name, *words]) as interruption:
        try:
            try:
                app(args=words, prog_name=name)
            except SystemExit:
                # If standard output is on a full disk, the error is raised only here.
                sys.stdout.flush()
                raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            status = error.code if isinstance(error, SystemExit) else 1
            # Libraries may turn an interruption into their own errors.
            if isinstance(error, KeyboardInterrupt) or status == STATUS or (interruption.happened and status):
                interruption.tell()
                sys.exit(STATUS)
            if isinstance(error, GPTDynamicsError):
                say_error(f"error: {error}")
                sys.exit(1)
            if isinstance(error, OSError) and _is_full_or_closed(error):
                sys.exit(1)
            raise


def run_process(app: typer.Typer, arguments: list[str] | None = None, name: str | None = None) -> None:
    """`run_app` as the main function of a process: after an interruption it does not wait for threads and processes."""
    try:
        run_app(app, arguments, name)
    except SystemExit as stop:
        if stop.code == STATUS:
            end_process()
        raise


def _is_full_or_closed(error: OSError) -> bool:
    """Whether standard output is on a full disk, for which it prints a message, or a closed pipe."""
    if error.errno == errno.ENOSPC and error.filename is None:
        say_error(f"error: cannot write to standard output: {error.strerror}. Make room, or redirect it elsewhere")
        # Otherwise Python tries to write again at exit.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        return True
    return False


def _quiet_libraries() -> None:
    """Switch off the libraries' progress bars and hints, which would break our own."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


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


def _keep_words_whole(table: Table) -> list[int]:
    """Let names and texts fold between words, and numbers never; returns the width that each column needs."""
    from rich.cells import cell_len

    widths = []
    for column in table.columns:
        cells = [str(cell) for cell in column.cells]
        column.no_wrap, column.overflow = False, "fold"
        if column.justify == "right":
            column.min_width = max(map(cell_len, cells), default=0)
            # Headings that are longer may be wrapped.
            column.no_wrap = cell_len(str(column.header)) <= column.min_width
        folded = [str(column.header), *(cells if column.justify != "right" else ())]
        longest = min(max([cell_len(word) for text in folded for word in text.split()], default=1), _LONGEST_WORD)
        column.min_width = max(column.min_width or 0, longest)
        # And a line beside it.
        widths.append(column.min_width + table.padding[1] + table.padding[3] + 1)
    return widths


def _width(table: Table, columns: list[int]) -> int:
    """How wide a table of columns of these widths is."""
    return 1 + sum(columns) - (0 if table.pad_edge else table.padding[1] + table.padding[3])


def _that_fit(table: Table, width: int) -> list[Table]:
    """The table, or where it is wider than the terminal, parts of its columns, each after those that name its rows."""
    needed = _keep_words_whole(table)
    names = list(takewhile(lambda at: table.columns[at].justify == "left", range(len(needed)))) or [0]
    parts = [list(names)]
    for at in range(len(names), len(needed)):
        if len(parts[-1]) > len(names) and _width(table, [needed[each] for each in (*parts[-1], at)]) > width:
            parts.append(list(names))
        parts[-1].append(at)
    return [_columns_of(table, part, first=part is parts[0], last=part is parts[-1]) for part in parts]


def _narrow(table: Table, width: int) -> None:
    """Take what the table is too wide by from the columns that have most to spare."""
    from rich.cells import cell_len

    least = [column.min_width or 0 for column in table.columns]
    given = [
        max([cell_len(line) for text in (column.header, *column.cells) for line in str(text).split("\n")])
        for column in table.columns
    ]
    padding = table.padding[1] + table.padding[3] + 1
    for _ in range(_width(table, [each + padding for each in given]) - width):
        at = max(range(len(given)), key=lambda each: given[each] - least[each])
        given[at] -= 1
        for column, each in zip(table.columns, given, strict=True):
            column.width = each


def _columns_of(table: Table, chosen: list[int], first: bool, last: bool) -> Table:
    part = copy(table)
    part.columns = [replace(table.columns[at], _index=place) for place, at in enumerate(chosen)]
    part.title = table.title if first else "(further columns)"
    part.caption = table.caption if last else None
    return part


def _show_on(console: Console, table: Table) -> None:
    from rich.segment import Segment, Segments

    for part in _that_fit(table, console.width):
        # A terminal that is narrower breaks the lines itself.
        width = max(console.width, _width(part, _keep_words_whole(part)))
        _narrow(part, width)
        segments = [
            segment if segment.control else Segment(safe_text(segment.text, one_line=False), segment.style)
            for segment in console.render(part, console.options.update(max_width=width))
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
