"""Base models in folders of this machine: what is published is a folder's name, and where it is stays here."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from gptdynamics.atomic import write_text
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
    # Where nothing can be kept, the folder is named again.
    with suppress(DataError):
        write_text(_places(published_name(name)) / f"{revision}.path", str(Path(os.path.abspath(folder))))  # noqa: PTH100


def remembered_folder(name: str) -> Path | None:
    """The folder that was last remembered under a published name, if it is still there."""
    places = _places(name)
    with suppress(OSError, ValueError):
        for kept in sorted(places.glob("*.path"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            folder = Path(kept.read_text(encoding="utf-8"))
            if folder.is_dir():
                return folder
    return None


def _places(name: str) -> Path:
    root = os.environ.get("GPTDYNAMICS_CACHE")
    cache = Path(root) if root else Path.home() / ".cache" / "gptdynamics"
    return cache / "base_models" / hashlib.sha256(name.encode()).hexdigest()[:16]
