"""Writing to an output that a user names: a file, a link to one, a device, a pipe, or standard output."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from gptdynamics.atomic import remove_leftovers_of, write_atomically
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.scratch import scratch_folder

STANDARD_OUTPUT = Path("-")
_MOST_LINKS = 40
# Folders of the files that this process has open, by number.
_DESCRIPTORS = (Path("/dev/fd"), Path("/proc/self/fd"), Path("/proc/thread-self/fd"))


def write_output(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that a user named; `write` is called with the path of an empty regular file and fills it.

    A regular or new file is written atomically; for a link, its target is. Devices, pipes and open files such as
    `/dev/stdout` are written to, and never replaced. `-` is standard output. Raises DataError if it cannot be written.
    """
    with _one_line(path):
        target, descriptor = _resolved(path)
        check_output(path)
        if descriptor is None and _is_file_or_new(target):
            old_status = target.stat() if target.exists() else None
            write_atomically(target, write)
            remove_leftovers_of(target)
            if old_status is not None:
                _keep_owner_and_mode(target, old_status)
            return
        with scratch_folder() as folder:
            filled = Path(folder) / (target.name or "output")
            filled.touch()
            write(filled)
            content = filled.read_bytes()
        _pour(content, target, descriptor)


def write_output_text(path: Path, text: str) -> None:
    """Write text as UTF-8, see `write_output`; unpaired surrogates become `?`."""
    content = text.encode("utf-8", "replace")
    write_output(path, lambda file: _fill(file, content))


def write_output_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write plain values, dataclasses and arrays as JSON, see `plain_value`; `indent` None: on one line."""
    write_output_text(path, json_text(value, indent) + "\n")


def json_text(value: Any, indent: int | None = 1) -> str:
    """Plain values as JSON that every parser can read."""
    return json.dumps(plain_value(value), indent=indent, allow_nan=False)


def plain_value(value: Any) -> Any:
    """Convert a value to one that JSON can hold: numbers that are not finite become None, other types their text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain_value(element) for name, element in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(element) for element in value]
    if isinstance(value, set | frozenset):
        return [plain_value(element) for element in sorted(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return plain_value(asdict(value))
    if hasattr(value, "tolist"):  # arrays and numbers of numpy and torch
        return plain_value(value.tolist())
    return str(value)


def check_output(path: Path) -> None:
    """Check that a file can be written, before the work for its content is done; raises DataError if not."""
    with _one_line(path):
        target, descriptor = _resolved(path)
        if descriptor is not None:
            os.fstat(descriptor)
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            # Other failures, such as a name that is too long, are errors.
            target.lstat()
        if target.is_dir():
            raise DataError(f"cannot write {path}: it is a folder. Name a file in it")
        if target.exists():
            if not os.access(target, os.W_OK):
                raise DataError(f"cannot write {path}: it is read-only. Name another file")
            return
        folder = next(parent for parent in target.parents if parent.exists())
        if not folder.is_dir():
            raise DataError(f"cannot write {path}: {folder} is not a folder. Name another file")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DataError(f"cannot write {path}: {folder} is read-only. Name another file")


def is_standard_output(path: Path | None) -> bool:
    """Whether a path is standard output, where tables and messages go."""
    if path is None:
        return False
    with _one_line(path):
        return _resolved(path)[1] == 1


def _resolved(path: Path) -> tuple[Path, int | None]:
    """The target of links, and the descriptor of this process that it stands for, if any."""
    if path == STANDARD_OUTPUT:
        return path, 1
    target = path.absolute()
    for _ in range(_MOST_LINKS):
        if target.name.isdecimal() and target.parent.resolve() in map(Path.resolve, _DESCRIPTORS):
            return target, int(target.name)
        if not target.is_symlink():
            return target, None
        target = target.parent / target.readlink()
    raise DataError(f"cannot write {path}: its links form a loop. Name another file")


def _is_file_or_new(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _keep_owner_and_mode(path: Path, old_status: os.stat_result) -> None:
    status = path.stat()
    if (status.st_uid, status.st_gid) != (old_status.st_uid, old_status.st_gid):
        try:
            os.chown(path, old_status.st_uid, old_status.st_gid)
        except OSError:
            # If the owner cannot be restored, the mode must not be, either: it would give the new owner more rights.
            return
    path.chmod(stat.S_IMODE(old_status.st_mode))


def _pour(content: bytes, target: Path, descriptor: int | None) -> None:
    """Write to an existing device, pipe or open file."""
    if descriptor is None:
        stream_descriptor = os.open(target, os.O_WRONLY)
    else:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if descriptor == 1 and not _is_process_stdout():
            sys.stdout.write(content.decode("utf-8", "replace"))
            return
        stream_descriptor = os.dup(descriptor)
    with os.fdopen(stream_descriptor, "wb") as stream:
        stream.write(content)


def _is_process_stdout() -> bool:
    """Whether Python's standard output is that of the process; tests and notebooks replace it."""
    try:
        return sys.stdout.fileno() == 1
    except (OSError, AttributeError, ValueError):
        return False


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except GPTDynamicsError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"cannot write {path}: {reason}") from error
