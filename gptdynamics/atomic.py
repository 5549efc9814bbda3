"""Atomic writing of files: a file is written completely or not at all."""

from __future__ import annotations

import glob
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gptdynamics.errors import DataError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the same folder, flush it to disk and rename it; creates missing folders.

    Raises DataError if it cannot be written (no space, no permission); then nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{_writer(os.getpid())}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _writer(process: int) -> str:
    return f"{process}@{platform.node()}"


def leftovers(root: Path) -> list[Path]:
    """Temporary files under `root` of processes on this machine that were killed while writing."""
    return list(_left_of_killed(root.rglob(".*.tmp")))


def remove_leftovers(root: Path) -> None:
    """Remove the files that `leftovers` finds."""
    for path in leftovers(root):
        path.unlink(missing_ok=True)


def remove_leftovers_of(path: Path) -> None:
    """Remove temporary files of processes that were killed while writing this file."""
    for leftover in _left_of_killed(path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
        leftover.unlink(missing_ok=True)


def _left_of_killed(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        match = re.search(r"\.(\d+)@([^/]*)\.[^.]*\.tmp$", path.name)
        if match and match[2] == platform.node() and not is_running(int(match[1])):
            yield path


def is_running(process: int) -> bool:
    """Whether a process on this machine is running."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_atomically(path, lambda temporary: _fill(temporary, text))


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
