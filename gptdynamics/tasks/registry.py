"""The tasks that a config name can begin with."""

from __future__ import annotations

from gptdynamics.errors import SettingsError
from gptdynamics.tasks.mini_sentiment import MiniSentiment
from gptdynamics.tasks.mini_triples import MiniTriples
from gptdynamics.tasks.rte import RTE
from gptdynamics.tasks.task import Task
from gptdynamics.tasks.webnlg import WebNLG

TASKS: tuple[type[Task], ...] = (RTE, WebNLG, MiniSentiment, MiniTriples)


def task_names() -> list[str]:
    """Names of all tasks."""
    return [task.name for task in TASKS]


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        SettingsError: there is none; the message lists those there are.
    """
    for task in TASKS:
        if task.name == name:
            return task()
    raise SettingsError(f"unknown task {name!r}; known tasks: {', '.join(task_names())}")
