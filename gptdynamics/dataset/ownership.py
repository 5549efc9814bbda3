"""Which files of a folder a collection, a recording or an import has written, and may write again."""

from __future__ import annotations

import re
from pathlib import Path

from gptdynamics.configs import config_parts
from gptdynamics.dataset.card import CARD, card_is_ours, read_card
from gptdynamics.dataset.folder import read_json
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.ownership import check_folder

WAY_OUT = "--output"
_DATA = re.compile(
    r"[^/]+_examples/(pool|test)\.parquet|[^/]+/(train|validation|test|test_unseen)-u?[0-9]{4,}\.parquet"
)


def check_dataset_folder(root: Path, way_out: str = WAY_OUT) -> None:
    """See that a dataset may be written to a folder, before any work.

    It may if the folder is new or empty, or holds a dataset of this package, whichever version wrote it: manifests,
    files of runs or examples, or a card with a generated part.

    Args:
        root: the folder.
        way_out: how to name another folder.

    Raises:
        DataError: the folder holds something else; or its card cannot be read, so that it could not be kept.
    """
    for part in (root / name for name in ("data", "manifests", "sidecar")):
        if part.exists() and not part.is_dir():
            raise DataError(f"cannot write {part}: it is a file, not a folder. Move it, or name another with {way_out}")
    check_folder(root, holds_dataset, "GPTDynamics dataset", way_out)
    try:
        read_card(root / CARD)
    except DataError as error:
        raise DataError(f"{root}: {error}") from error


def check_new_folder(root: Path, way_out: str) -> None:
    """See that a folder is new or empty.

    Raises:
        DataError: it holds something.
    """
    if holds_dataset(root):
        raise DataError(f"{root} holds a dataset already: name a new or empty folder with {way_out}")
    check_folder(root, lambda folder: False, "dataset", way_out)


def holds_dataset(root: Path) -> bool:
    """Whether a folder holds something of a dataset of ours."""
    if any(_is_manifest(path) for path in root.glob("manifests/*.json")):
        return True
    if any(_DATA.fullmatch(path.relative_to(root / "data").as_posix()) for path in root.glob("data/*/*.parquet")):
        return True
    try:
        return card_is_ours(read_card(root / CARD))
    except DataError:
        return False


def _is_manifest(path: Path) -> bool:
    """Whether a file is named for a config and has the parts of a manifest."""
    try:
        config_parts(path.stem)
        content = read_json(path)
    except GPTDynamicsError:
        return False
    return isinstance(content.get("settings"), dict) and isinstance(content.get("planned"), dict)
