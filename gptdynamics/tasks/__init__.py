"""Tasks by name, and their examples."""

from gptdynamics.tasks.loading import load_examples
from gptdynamics.tasks.registry import get_task, task_names
from gptdynamics.tasks.task import HubSource, Row, Task

__all__ = ["HubSource", "Row", "Task", "get_task", "load_examples", "task_names"]
