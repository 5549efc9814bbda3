"""Tasks stored in dataset folders, as TOML files in `own_tasks`: available once such a folder is opened."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.tasks.declared import read_declaration, task_class
from gptdynamics.tasks.task import Task
from gptdynamics.tasks.user_tasks import checked_task

# JSON, path by task name. Worker processes inherit the environment.
_VARIABLE = "GPTDYNAMICS_KEPT_TASKS"
FOLDER = "own_tasks"


def remember_kept_tasks(root: Path) -> None:
    """Make the tasks stored in a dataset folder available, here and in processes that are started later.

    If two folders store a task of the same name, the folder opened last is used. A file is read, and checked, only
    when its task is needed.
    """
    # Not resolved: in the Hub's cache, files are links to others whose names have no suffix.
    paths = {path.stem: str(path.absolute()) for path in sorted((root / FOLDER).glob("*.toml"))}
    if paths.items() <= _paths().items():
        return
    os.environ[_VARIABLE] = json.dumps(_paths() | paths)


def kept_task_texts() -> list[tuple[str, str]]:
    """Name and text of each of their files, for machines that do not have the folders."""
    return [(path.name, path.read_text("utf-8")) for path in map(Path, _paths().values()) if path.is_file()]


def use_kept_texts(texts: list[tuple[str, str]], folder: Path) -> None:
    """Write these tasks (see `kept_task_texts`) to a folder and make them, and no others, available."""
    os.environ.pop(_VARIABLE, None)
    for name, text in texts:
        path = folder / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    remember_kept_tasks(folder)


def kept_names() -> list[str]:
    """Names of the tasks stored in opened dataset folders."""
    return [name for name, path in _paths().items() if Path(path).is_file()]


def kept_task(name: str) -> Task | None:
    """The task of this name that is stored in an opened dataset folder; None if there is none.

    Raises:
        SettingsError: the file does not describe it.
    """
    path = _paths().get(name)
    return read_kept_task(Path(path)) if path and Path(path).is_file() else None


def read_kept_task(path: Path) -> Task:
    """The task in a file of a dataset folder; raises SettingsError, which names the file, if it is damaged."""
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> Task:
    try:
        task = checked_task(task_class(read_declaration(path), from_dataset=True), from_dataset=True)
    except GPTDynamicsError as error:
        message = str(error).removeprefix(f"{path}: ")
        raise SettingsError(
            f"{path}: {message}. Restore the file, or name the task's original file with --task-file"
        ) from error
    if task.name != path.stem:
        raise SettingsError(f"{path}: name = {task.name!r} must be the name of the file. Restore the file")
    return task


def _paths() -> dict[str, Any]:
    return dict(json.loads(os.environ.get(_VARIABLE) or "{}"))
