"""What both command lines share: how a command runs and ends, and everything that it shows in a terminal."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


# Around each column of a table: a space on both sides, and a line.
_PADDING = 3
_NARROWEST_NAME = 4


class _Places:
    """Where tables and messages go; `beside`: to standard error, because standard output is for JSON.

    `details`: whether lines for whoever wants to know more are shown, too.
    """

    beside = False
    details = False


def run_app(app: typer.Typer, arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run a command line; an error a user can mend is one line on standard error and exit status 1.

    An interruption (Ctrl-C) is one line, too: what is kept, and the command that goes on; the status is 130.

    Args:
        app: the command line.
        arguments, name: of the command. Default: those of the process.
    """
    _quiet_libraries()
    for stream in ("stdout", "stderr"):
        # The parent process may have closed it.
        if getattr(sys, stream) is None:
            setattr(sys, stream, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    _Places.beside = _Places.details = False
    given = sys.argv[1:] if arguments is None else arguments
    with interruptible([name or Path(sys.argv[0]).name, *given]) as interruption:
        try:
            try:
                app(args=given, prog_name=name)
            except SystemExit:
                # If standard output is on a full disk, the error is raised only here.
                sys.stdout.flush()
                raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            status = error.code if isinstance(error, SystemExit) else 1
            # Libraries replace an interruption by errors of their own.
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
    """`run_app` as the whole work of this process: after an interruption it does not wait for threads and processes."""
    try:
        run_app(app, arguments, name)
    except SystemExit as stop:
        if stop.code == STATUS:
            end_process()
        raise


def _is_full_or_closed(error: OSError) -> bool:
    """Whether standard output is a full disk or a closed pipe; a full one is said."""
    if error.errno == errno.ENOSPC and error.filename is None:
        say_error(f"error: cannot write to standard output: {error.strerror}. Make room, or send it elsewhere")
        # Otherwise Python tries to write again when it ends.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        return True
    return False


def _quiet_libraries() -> None:
    """Loading bars of the libraries below would break ours."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def print_beside_json(figures_on_stdout: bool) -> None:
    """Say whether standard output is for JSON: tables and messages then go to standard error."""
    _Places.beside = figures_on_stdout


def show_details(wanted: bool) -> None:
    """Say whether `say_detail` prints."""
    _Places.details = wanted


def say_detail(text: str) -> None:
    """Print a line as `say` does, with `--verbose` only."""
    if _Places.details:
        say(text)


def say(text: str) -> None:
    """Print a line on standard output; control characters in it are escaped, see `safe_text`."""
    print(safe_text(text), file=sys.stderr if _Places.beside else sys.stdout)


def say_error(text: str) -> None:
    """Print a line on standard error, in the same way."""
    print(safe_text(text), file=sys.stderr)


def show(table: Table) -> None:
    """Print a table on standard output; no text in it is taken for markup, and no number is cut."""
    from rich.console import Console

    _show_on(Console(stderr=_Places.beside, markup=False, emoji=False, highlight=False), table)


def table_text(table: Table, width: int = 80) -> str:
    """What `show` prints in a terminal of so many columns, without colours."""
    from rich.console import Console

    console = Console(
        width=width, color_system=None, force_jupyter=False, force_terminal=False, markup=False, emoji=False
    )
    with console.capture() as captured:
        _show_on(console, table)
    return captured.get().rstrip()


def _keep_numbers_whole(table: Table) -> int:
    """Let a table that is too wide fold its names: part of a number is another number. The columns that it needs."""
    from rich.cells import cell_len

    needed = 1
    for column in table.columns:
        column.no_wrap, column.overflow = False, "fold"
        if column.justify == "right":
            column.min_width = max([cell_len(str(cell)) for cell in column.cells], default=0)
            # A longer heading may be wrapped.
            column.no_wrap = cell_len(str(column.header)) <= column.min_width
        needed += _PADDING + (column.min_width or _NARROWEST_NAME)
    return needed


def _show_on(console: Console, table: Table) -> None:
    from rich.segment import Segment, Segments

    # A narrower terminal breaks the lines itself.
    width = max(console.width, _keep_numbers_whole(table))
    segments = [
        each if each.control else Segment(safe_text(each.text, one_line=False), each.style)
        for each in console.render(table, console.options.update(max_width=width))
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
        """What is done, as it is: no markup, no control characters."""

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
            # Remove the bars, so that only the error is left to read.
            progress.live.transient = True
            raise


@contextmanager
def counted_runs() -> Iterator[Callable[[int, int], None]]:
    """A bar of progress over runs; yields what is to be called with how many are done, and of how many."""
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
