"""Tasks: rows, prompts, targets and references; and mixtures of them."""

from gptdynamics.metrics import Metric
from gptdynamics.tasks.loading import load_examples
from gptdynamics.tasks.mixture import Mixture
from gptdynamics.tasks.registry import generates, get_single_task, get_task, is_of_package, is_registered, task_names
from gptdynamics.tasks.task import HubSource, Row, Split, Task, class_name, column
from gptdynamics.tasks.user_tasks import add_task_file

__all__ = [
    "HubSource",
    "Metric",
    "Mixture",
    "Row",
    "Split",
    "Task",
    "add_task_file",
    "class_name",
    "column",
    "generates",
    "get_single_task",
    "get_task",
    "is_of_package",
    "is_registered",
    "load_examples",
    "task_names",
]
