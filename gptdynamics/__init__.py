"""The GPTDynamics dataset: tasks, plans, collection of runs, storage, publishing.

Public names are imported when they are first used; importing the package loads none of the slow libraries.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from gptdynamics.errors import DataError, DivergedRunError, GPTDynamicsError, SettingsError
from gptdynamics.hub.short_name import install, load
from gptdynamics.hub.source import DEFAULT_REPO
from gptdynamics.lazy import lazy_names

if TYPE_CHECKING:
    from gptdynamics.api import collect, push
    from gptdynamics.dataset.reading import Dynamics, read_dynamics
    from gptdynamics.dataset.verify import verify
    from gptdynamics.metrics import Metric
    from gptdynamics.plans.plan import Plan
    from gptdynamics.recorder.steps import StepRecorder
    from gptdynamics.recorder.trainer import DynamicsRecorder
    from gptdynamics.tasks.task import Task
    from gptdynamics.tasks.user_tasks import add_task_file

__version__ = version("gptdynamics")

# From here on `load_dataset("gptdynamics", ...)` works in any folder, whenever `datasets` is or was imported.
install()

__all__ = [
    "DEFAULT_REPO",
    "DataError",
    "DivergedRunError",
    "Dynamics",
    "DynamicsRecorder",
    "GPTDynamicsError",
    "Metric",
    "Plan",
    "SettingsError",
    "StepRecorder",
    "Task",
    "__version__",
    "add_task_file",
    "collect",
    "load",
    "push",
    "read_dynamics",
    "verify",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Dynamics": "gptdynamics.dataset.reading",
        "DynamicsRecorder": "gptdynamics.recorder.trainer",
        "Metric": "gptdynamics.metrics",
        "Plan": "gptdynamics.plans.plan",
        "StepRecorder": "gptdynamics.recorder.steps",
        "Task": "gptdynamics.tasks.task",
        "add_task_file": "gptdynamics.tasks.user_tasks",
        "collect": "gptdynamics.api",
        "push": "gptdynamics.api",
        "read_dynamics": "gptdynamics.dataset.reading",
        "verify": "gptdynamics.dataset.verify",
    },
)
