"""Ctrl-C: the message of an interrupted command, and how it ends within two seconds in any state."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from gptdynamics.terminal_text import safe_text

STATUS = 130
# Time for a command to end by itself, and then for Python's exit: together less than two seconds.
GRACE_SECONDS, EXIT_SECONDS = 1.2, 0.6
_SHOW_CURSOR = "\x1b[?25h"


class Interruption:
    """A possible interruption of the running command.

    Args:
        command: the words of the command line, its name first.

    Attributes:
        happened: whether the user has interrupted the command.
        kept: text that says which results remain.
        resumes: whether running the same command again continues, instead of starting from the beginning.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.happened = False
        self.kept = "nothing was changed"
        self.resumes = False
        self._message_lock = threading.Lock()

    def message(self) -> str:
        """One line: what is kept, and the command that continues."""
        action = "continue" if self.resumes else "start again"
        return f"interrupted: {safe_text(self.kept)}. To {action}: {safe_text(shlex.join(self.command))}"

    def tell(self) -> None:
        """Print the message on standard error, once."""
        if not self._message_lock.acquire(blocking=False):
            return
        # Not through Python's stream: the main thread may hold its lock.
        with suppress(OSError, ValueError):
            # On a new line, below the `^C` of the terminal; a progress bar may have hidden the cursor.
            begin = f"{_SHOW_CURSOR}\n" if os.isatty(2) else ""
            os.write(2, f"{begin}{self.message()}\n".encode("utf-8", "replace"))


_current: list[Interruption] = []


def keeps(text: str) -> None:
    """Set the text of what remains (`finished runs are kept in out`) if the command is interrupted; it can continue."""
    for interruption in _current[-1:]:
        interruption.kept, interruption.resumes = text, True


@contextmanager
def interruptible(command: Sequence[str]) -> Iterator[Interruption]:
    """A context in which an interruption ends this process in time even if Python cannot handle it.

    Python raises `KeyboardInterrupt` only when the main thread executes Python code, and code that waits for threads or
    processes may continue to wait. A separate thread gets the signal at once; if the command has not ended in time,
    that thread prints the message and ends the worker processes and this process.
    """
    interruption = Interruption(command)
    _current.append(interruption)
    try:
        if threading.current_thread() is not threading.main_thread():
            yield interruption
            return
        with _watched(interruption):
            yield interruption
    finally:
        _current.remove(interruption)


@contextmanager
def _watched(interruption: Interruption) -> Iterator[None]:
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    ended = threading.Event()

    def watch() -> None:
        while (number := receiver.recv(1)) and number[0] != signal.SIGINT:
            pass
        if not number:
            return
        interruption.happened = True
        if not ended.wait(GRACE_SECONDS):
            _end_now(interruption)

    def interrupt(number: int, frame: FrameType | None) -> None:
        # The other thread may not have received the signal yet.
        interruption.happened = True
        raise KeyboardInterrupt

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    handler = signal.getsignal(signal.SIGINT)
    # Keep another handler: a shell makes background commands ignore the signal.
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(previous)
        signal.signal(signal.SIGINT, handler)
        sender.close()
        watcher.join(timeout=1)
        receiver.close()


def end_process() -> NoReturn:
    """Run the registered exit functions and end this process soon, without waiting for threads.

    Python's own exit takes seconds with large libraries loaded, and cannot be interrupted.
    """

    def end() -> None:
        _kill_workers()
        os._exit(STATUS)

    timer = threading.Timer(EXIT_SECONDS, end)
    timer.daemon = True
    timer.start()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    end()
    raise AssertionError("the process has ended")


def _kill_workers() -> None:
    for process in multiprocessing.active_children():
        process.kill()


def _end_now(interruption: Interruption) -> None:
    """End this process and its workers, from a thread that is not the main one."""
    _kill_workers()
    interruption.tell()
    os._exit(STATUS)
