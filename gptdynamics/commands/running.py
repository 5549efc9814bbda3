"""Runs a command line as a process does: errors, interruptions and a full disk end it with a line and a status."""

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.console import reset_output, say_error
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.interruption import STATUS, end_process, interruptible

if TYPE_CHECKING:
    import typer

# Libraries make hundreds of thousands of objects that stay. To look through them after every 700 new ones, as Python
# does by itself, is a tenth of the time in which a command starts.
_OBJECTS_BEFORE_COLLECTION = 100_000


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
    reset_output()
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
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
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
