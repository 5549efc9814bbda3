"""Whether a folder may be written to: nothing is added to, or replaced in, a folder of somebody's other work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from gptdynamics.errors import DataError


def check_folder(folder: Path, is_ours: Callable[[Path], bool], what: str, way_out: str) -> None:
    """Refuse a folder that holds files and was not made by this package.

    A folder that is not there yet, or whose files are all hidden (`.git`, `.gitattributes`, caches), counts as empty.

    Args:
        folder: that is to be written to.
        is_ours: whether it holds what this package has written; asked only if it holds something.
        what: such a folder holds, for the message, e.g. `GPTDynamics dataset`.
        way_out: how to name another folder, e.g. `--output`.

    Raises:
        DataError: it is a file, cannot be read, or holds files of somebody else.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"cannot write {folder}: it is a file, not a folder. Name another with {way_out}")
        first = next(visible_files(folder), None)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}. Name another folder with {way_out}"
        ) from error
    if first is not None and not is_ours(folder):
        raise DataError(
            f"cannot write {folder}: it holds other files (such as {first.relative_to(folder)}) and no {what}. "
            f"Name a new or empty folder with {way_out}, or move those files elsewhere"
        )


def visible_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it, but for hidden ones and what is in hidden folders."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from visible_files(path)
        else:
            yield path
