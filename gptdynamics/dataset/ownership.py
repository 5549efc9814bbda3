"""Checks that a folder may be written to, so that nothing is added to, or replaced in, folders of other work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from gptdynamics.configs import RUN_FILE_PATTERN, config_parts
from gptdynamics.dataset.card import CARD, card_is_ours, read_card
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.parsing import read_object

REMEDY = "--output"
_DATA = re.compile(rf"[^/]+_examples/(pool|test)\.parquet|[^/]+/{RUN_FILE_PATTERN}")


def check_folder(folder: Path, is_ours: Callable[[Path], bool], kind: str, remedy: str) -> None:
    """Raise DataError if a folder has files that this package did not write, or cannot be read.

    A missing folder, or one whose files are all hidden (`.git`, `.gitattributes`, caches), counts as empty.

    Args:
        folder: to write to.
        is_ours: whether this package wrote the folder's files; called only if there are any.
        kind: kind of content that is expected, for the message, e.g. `GPTDynamics dataset`.
        remedy: the option that names another folder, e.g. `--output`.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"cannot write {folder}: it is a file, not a folder. Name another with {remedy}")
        first = next(visible_files(folder), None)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}. Name another folder with {remedy}"
        ) from error
    if first is not None and not is_ours(folder):
        raise DataError(
            f"cannot write {folder}: it has other files (such as {first.relative_to(folder)}) and no {kind}. "
            f"Name a new or empty folder with {remedy}, or move those files elsewhere"
        )


def visible_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it, except hidden ones and those in hidden folders."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from visible_files(path)
        else:
            yield path


def check_dataset_folder(root: Path, remedy: str = REMEDY) -> None:
    """Check that a dataset may be written to a folder; raises DataError if not.

    It may if the folder is new or empty, or has a dataset of any version of this package: manifests, files of runs or
    examples, or a card with a generated part.
    """
    for part in (root / name for name in ("data", "manifests", "sidecar")):
        if part.exists() and not part.is_dir():
            raise DataError(f"cannot write {part}: it is a file, not a folder. Move it, or name another with {remedy}")
    check_folder(root, holds_dataset, "GPTDynamics dataset", remedy)
    try:
        read_card(root / CARD)
    except DataError as error:
        raise DataError(f"{root}: {error}") from error


def check_new_folder(root: Path, remedy: str) -> None:
    """Raise DataError unless a folder is new or empty."""
    if holds_dataset(root):
        raise DataError(f"{root} already has a dataset: name a new or empty folder with {remedy}")
    check_folder(root, lambda folder: False, "dataset", remedy)


def holds_dataset(root: Path) -> bool:
    """Whether a folder holds a dataset of this package, or a part of one."""
    if any(_is_manifest(path) for path in root.glob("manifests/*.json")):
        return True
    if any(_DATA.fullmatch(path.relative_to(root / "data").as_posix()) for path in root.glob("data/*/*.parquet")):
        return True
    try:
        return card_is_ours(read_card(root / CARD))
    except DataError:
        return False


def _is_manifest(path: Path) -> bool:
    try:
        config_parts(path.stem)
        content = read_object(path)
    except GPTDynamicsError:
        return False
    return isinstance(content.get("settings"), dict) and isinstance(content.get("planned"), dict)
