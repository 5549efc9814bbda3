"""Base models in folders of this machine: what is published is a folder's name, and where it is stays here."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gptdynamics.cache import BASE_MODELS
from gptdynamics.errors import DataError
from gptdynamics.hub.source import is_hub_id


def published_name(name: str) -> str:
    """What datasets and models call a base model: of a folder its name without its path, else the name as it is.

    Args:
        name: a known size, a Hub id, or a folder.
    """
    path = Path(name).expanduser()
    if is_hub_id(name.partition("@")[0]) and not path.is_dir():
        return name
    local = path.is_absolute() or os.sep in name or name.startswith(("~", "."))
    return Path(os.path.abspath(path)).name if local else name  # noqa: PTH100 - links keep their own names


def remember_folder(name: str, revision: str) -> None:
    """Keep where the folder of a base model is, so that later commands find it by its published name.

    Args:
        name: as it was given; other names than folders' are not kept.
        revision: of its weights.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() or published_name(name) == name:
        return
    place = os.path.abspath(folder)  # noqa: PTH100
    # Where nothing can be kept, the folder is named again.
    with suppress(DataError):
        BASE_MODELS.entries(published_name(name)).save(revision, lambda path: _write(path, place))


def remembered_folder(name: str) -> Path | None:
    """The folder that was last remembered under a published name, if it is still there."""
    places = BASE_MODELS.entries(name).load_all(lambda path: Path(path.read_text(encoding="utf-8")))
    return next((folder for folder in places if folder.is_dir()), None)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
