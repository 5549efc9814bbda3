"""Rules for the tasks that a dataset folder stores."""

from __future__ import annotations

from gptdynamics.dataset.checks.findings import NOT_OURS, Findings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.tasks import is_of_package
from gptdynamics.tasks.kept_tasks import FOLDER, read_kept_task


def check_tasks(folder: DatasetFolder, findings: Findings) -> None:
    """Check that each file describes the task of its name, and that the package has no task of that name."""
    for path in sorted((folder.root / FOLDER).glob("*")):
        if path.suffix != ".toml" or not path.is_file():
            findings.add(path, "", "not named <task>.toml", NOT_OURS)
            continue
        try:
            task = read_kept_task(path)
        except GPTDynamicsError as error:
            problem, _, remedy = str(error).removeprefix(f"{path}: ").rpartition(". ")
            findings.add(path, "", problem, remedy)
            continue
        if is_of_package(task.name):
            findings.add(path, "", f"the package already has a task {task.name}", "Move it out of the folder")
