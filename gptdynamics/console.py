"""What both command lines share: one line for an error, and a progress bar with the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gptdynamics.errors import GPTDynamicsError

if TYPE_CHECKING:
    import typer
    from rich.progress import Progress


def run_app(app: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run a command line; an error a user can mend is one line on standard error and exit status 1.

    Args:
        app: the command line.
        arguments: default: those of the process.
    """
    _quiet_libraries()
    try:
        app(args=arguments)
    except GPTDynamicsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _quiet_libraries() -> None:
    """Loading bars of the libraries below would break ours."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error: description, bar, count, time spent and time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
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
            # Take the bars away: what is left to read is the error.
            progress.live.transient = True
            raise
