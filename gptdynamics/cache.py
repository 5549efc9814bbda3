"""A cache of results that take long to compute, in `$GPTDYNAMICS_CACHE` or `~/.cache/gptdynamics`.

An entry is a file in the folder of its kind, named by a digest of everything that its content depends on. A second file
has a digest of its bytes: truncated or changed files are not read, but computed again. To add a kind, write a line:

    ENCODINGS = Kind("encodings", "vectors of examples, by encoder", ".npy")
    path = ENCODINGS.entries(base.revision).get([layer, width], Path, write)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gptdynamics.atomic import remove_leftovers_of, write_atomically, write_text
from gptdynamics.errors import GPTDynamicsError

if TYPE_CHECKING:
    import numpy as np

Value = TypeVar("Value")
_ARRAYS = "arrays"
_CHECKSUM = ".sha256"
# A file of an entry, or a file in a group of entries. No other files in the cache's folder are ever removed.
_OURS = re.compile(r"[0-9a-f]{16,64}/[^/]+|\.?[0-9a-f]{16,64}\.[^/]+")


def cache_folder() -> Path:
    """The folder of all entries."""
    root = os.environ.get("GPTDYNAMICS_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "gptdynamics"


def content_digest(content: object) -> str:
    """A digest, 32 hexadecimal digits, of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entries:
    """The entries in one folder, which several processes may read and write at the same time."""

    folder: Path
    suffix: str = ".safetensors"

    def path(self, key: object) -> Path:
        """The file of an entry, whether it exists or not. `key`: JSON values that its content depends on."""
        return self.folder / f"{content_digest(key)}{self.suffix}"

    def load(self, key: object, read: Callable[[Path], Value]) -> Value | None:
        """The result of `read` for an entry's file; None if the entry is missing, or damaged and now removed."""
        return self._read(self.path(key), read)

    def load_all(self, read: Callable[[Path], Value]) -> Iterator[Value]:
        """Every undamaged entry, the last written first."""
        for path in sorted(self.folder.glob(f"[!.]*{self.suffix}"), key=_written, reverse=True):
            value = self._read(path, read)
            if value is not None:
                yield value

    def save(self, key: object, write: Callable[[Path], None]) -> None:
        """Write or replace an entry; `write` fills the file at the given path.

        Raises:
            DataError: it cannot be written.
        """
        path = self.path(key)
        digest = ""

        def fill(target: Path) -> None:
            nonlocal digest
            write(target)
            digest = file_digest(target)

        remove_leftovers_of(path)
        write_atomically(path, fill)
        write_text(checksum_path(path), digest)

    def get(self, key: object, read: Callable[[Path], Value], write: Callable[[Path], None]) -> Value:
        """An entry, written by `write` if it is missing. With `Path` as `read`, its file.

        Raises:
            DataError: it cannot be written.
        """
        value = self.load(key, read)
        if value is None:
            self.save(key, write)
            value = read(self.path(key))
        return value

    def load_arrays(self, key: object) -> dict[str, np.ndarray] | None:
        """Arrays that `save_arrays` wrote."""
        from gptdynamics.tensor_files import read_tensors

        return self.load(key, lambda path: read_tensors(path, _ARRAYS)[0])

    def save_arrays(self, key: object, arrays: Mapping[str, np.ndarray]) -> None:
        """Write or replace an entry of arrays by name."""
        from gptdynamics.tensor_files import write_tensors

        self.save(key, lambda path: write_tensors(path, arrays, {}, _ARRAYS))

    def _read(self, path: Path, read: Callable[[Path], Value]) -> Value | None:
        try:
            if not is_sound(path):
                raise ValueError("its content does not match its digest")
            value = read(path)
            # Set the time of the last use, as some file systems do not.
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
            return value
        except OSError:
            return None
        except (GPTDynamicsError, ValueError, KeyError) as error:
            import logging

            logging.getLogger(__name__).warning("note: %s is damaged (%s): it is computed again", path, error)
            with suppress(OSError):
                checksum_path(path).unlink()
                path.unlink()
            return None


@dataclass(frozen=True)
class Kind:
    """Entries of one kind: the name of their folder, their description in `gptdynamics cache`, and their suffix."""

    name: str
    holds: str
    suffix: str = ".safetensors"

    def entries(self, group: object) -> Entries:
        """The entries that depend on `group`, any JSON value; each group has its own folder."""
        return Entries(cache_folder() / self.name / content_digest(group), self.suffix)


ENCODINGS = Kind("encodings", "vectors of examples, by encoder", ".npy")
BASE_MODELS = Kind("base_models", "paths of base models in local folders", ".txt")
DOWNLOADED_MODELS = Kind("downloaded_models", "base models that are not from the Hub")
KERNELS = Kind("kernels", "gradient products of examples along repeated runs")
KINDS = (ENCODINGS, BASE_MODELS, DOWNLOADED_MODELS, KERNELS)


@dataclass(frozen=True)
class Usage:
    """A folder of the cache: `size` in bytes, `last_use` in seconds since 1970, `files` that `clear` removes."""

    kind: str
    holds: str
    files: list[Path]
    entries: int
    size: int
    last_use: float | None


def usage() -> list[Usage]:
    """The content of the cache: every kind, then folders of earlier versions."""
    holds = {kind.name: kind.holds for kind in KINDS}
    root = cache_folder()
    for folder in sorted(root.iterdir() if root.is_dir() else ()):
        files = _files(folder)
        if files and all(_is_ours(folder, path) for path in files):
            holds.setdefault(folder.name, "not used by this version")
    return [_usage(root / name, holds[name]) for name in holds]


def clear(used: Collection[Usage]) -> None:
    """Remove the files of `usage`, and folders that become empty."""
    for path in (path for kind_usage in used for path in kind_usage.files):
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[:2]:
            if folder != cache_folder() and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _usage(folder: Path, holds: str) -> Usage:
    files = [path for path in _files(folder) if _is_ours(folder, path)]
    entries = [path.stat() for path in files if path.suffix not in (_CHECKSUM, ".tmp")]
    last = max((max(status.st_atime, status.st_mtime) for status in entries), default=None)
    return Usage(folder.name, holds, files, len(entries), sum(path.stat().st_size for path in files), last)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]


def _is_ours(folder: Path, path: Path) -> bool:
    return not path.is_symlink() and _OURS.fullmatch(path.relative_to(folder).as_posix()) is not None


def checksum_path(path: Path) -> Path:
    """The file that holds the digest of another file's bytes."""
    return path.with_name(path.name + _CHECKSUM)


def is_sound(path: Path) -> bool:
    """Whether a file matches its stored digest; raises OSError if one of the two files cannot be read."""
    return checksum_path(path).read_bytes() == file_digest(path).encode()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
