"""Base models in local folders: datasets and simulators publish a folder's name, but not its path."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gptdynamics.cache import BASE_MODELS
from gptdynamics.errors import DataError
from gptdynamics.hub.source import is_hub_id


def published_name(name: str) -> str:
    """The published name of a base model: for a folder its name without its path, else the name unchanged.

    Args:
        name: a known size, a Hub id, or a folder.
    """
    path = Path(name).expanduser()
    if is_hub_id(name.partition("@")[0]) and not path.is_dir():
        return name
    local = path.is_absolute() or os.sep in name or name.startswith(("~", "."))
    return Path(os.path.abspath(path)).name if local else name  # noqa: PTH100 - links keep their own names


def remember_folder(name: str, revision: str) -> None:
    """Store the path of a base model's folder, so that later commands find it by its published name.

    Args:
        name: of the base model; only folders are stored.
        revision: of its weights.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() or published_name(name) == name:
        return
    place = os.path.abspath(folder)  # noqa: PTH100
    # If it cannot be stored, the user has to name the folder again.
    with suppress(DataError):
        BASE_MODELS.entries(published_name(name)).save(revision, lambda path: _write(path, place))


def remembered_folder(name: str) -> Path | None:
    """The folder that was last stored under a published name, if it still exists."""
    places = BASE_MODELS.entries(name).load_all(lambda path: Path(path.read_text(encoding="utf-8")))
    return next((folder for folder in places if folder.is_dir()), None)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
