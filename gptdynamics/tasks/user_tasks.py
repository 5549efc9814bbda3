"""Tasks of a user's own, from Python files."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from functools import cache
from pathlib import Path

from gptdynamics.errors import SettingsError
from gptdynamics.tasks.task import Task

# The environment reaches the worker processes, too.
VARIABLE = "GPTDYNAMICS_TASKS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*")


def add_task_file(path: Path) -> None:
    """Make the tasks of a Python file known, here and in processes that are started from now on.

    Args:
        path: a file with at least one subclass of `Task`.

    Raises:
        SettingsError: it cannot be used; the message says why.
    """
    whole = str(path.resolve())
    _tasks_of(whole)
    files = _files()
    if whole not in files:
        os.environ[VARIABLE] = os.pathsep.join([*files, whole])


def user_tasks() -> list[Task]:
    """The tasks of all task files named by `$GPTDYNAMICS_TASKS`.

    Raises:
        SettingsError: a file cannot be used.
    """
    return [task for path in _files() for task in _tasks_of(path)]


def _files() -> list[str]:
    return [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


@cache
def _tasks_of(path: str) -> tuple[Task, ...]:
    if not Path(path).is_file():
        raise SettingsError(f"{path}: no such task file")
    name = f"gptdynamics_task_file_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path}: a task file is a Python file, with the ending .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SettingsError(f"{path}: {type(error).__name__}: {error}") from error
    found = [
        each
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, Task) and each.__module__ == name
    ]
    tasks = tuple(_checked(each, path) for each in found)
    if not tasks:
        raise SettingsError(f"{path}: has no subclass of gptdynamics.tasks.Task")
    return tasks


def _checked(kind: type[Task], path: str) -> Task:
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise SettingsError(f"{path}: {kind.__name__} lacks {missing}")
    for attribute in ("name", "fields"):
        if not getattr(kind, attribute, None):
            raise SettingsError(f"{path}: {kind.__name__} lacks {attribute}")
    if not _NAME.fullmatch(kind.name):
        raise SettingsError(
            f"{path}: {kind.__name__}.name = {kind.name!r} may have letters, digits and single _ . - only"
        )
    if kind.prompt is Task.prompt and not kind.plain:
        raise SettingsError(f"{path}: {kind.__name__} lacks plain, the template of its prompt")
    return kind()
