"""The tasks that a config name can begin with."""

from __future__ import annotations

from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from gptdynamics.tasks.boolq import BoolQ
from gptdynamics.tasks.cnn_dm import CNNDailyMail
from gptdynamics.tasks.kept_tasks import kept_names, kept_task
from gptdynamics.tasks.mini_sentiment import MiniSentiment
from gptdynamics.tasks.mini_triples import MiniTriples
from gptdynamics.tasks.mixture import Mixture
from gptdynamics.tasks.rte import RTE
from gptdynamics.tasks.sst2 import SST2
from gptdynamics.tasks.task import Task
from gptdynamics.tasks.user_tasks import VARIABLE, user_tasks
from gptdynamics.tasks.webnlg import WebNLG
from gptdynamics.tasks.wmt16 import WMT16

_EVALUATED = (RTE(), SST2(), BoolQ(), WebNLG(), WMT16())
# CNN/DailyMail is trained on only, as in the paper (section 4.1.1).
FLAN = Mixture("flan", (*_EVALUATED, CNNDailyMail()), _EVALUATED)
TASKS: tuple[Task | Mixture, ...] = (*FLAN.parts, FLAN, MiniSentiment(), MiniTriples())


def _registered() -> dict[str, Task | Mixture]:
    tasks: dict[str, Task | Mixture] = {task.name: task for task in TASKS}
    for path, task in user_tasks():
        if task.name in tasks:
            raise SettingsError(f"{path}: there is a task {task.name!r} already: give this one another name")
        tasks[task.name] = task
    return tasks


def is_of_package(name: str) -> bool:
    """Whether a task comes with the package."""
    return any(task.name == name for task in TASKS)


def is_registered(name: str) -> bool:
    """Whether the package or a task file defines a task; a dataset folder that stores it does not count."""
    return name in _registered()


def task_names() -> list[str]:
    """Names of all tasks, including those of task files and of opened dataset folders."""
    return list(dict.fromkeys([*_registered(), *kept_names()]))


def _find(name: str) -> Task | Mixture | None:
    return _registered().get(name) or kept_task(name)


def get_task(name: str) -> Task | Mixture:
    """The task or mixture called `name`: from the package, else a task file, else an opened dataset folder.

    Raises SettingsError, which lists the known tasks, if there is none.
    """
    task = _find(name)
    if task is None:
        raise SettingsError(
            f"unknown task {name!r}; known tasks: {', '.join(task_names())}. "
            f"If it is a task of your own, name its file with --task-file, or in ${VARIABLE}"
        )
    return task


def get_single_task(name: str) -> Task:
    """The task called `name`; raises SettingsError if there is none, or it is a mixture."""
    task = get_task(name)
    if isinstance(task, Mixture):
        raise SettingsError(f"{name} is a mixture of tasks; name one of them")
    return task


def generates(example: Example) -> bool:
    """Whether text is generated and scored for an example; else its target is compared with labels.

    If its task is unknown, text is generated if the example has references.
    """
    task = _find(example.task)
    return task.generates if isinstance(task, Task) else bool(example.references)
