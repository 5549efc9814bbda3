"""Pushing a folder while it is collected into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.hub.push import check_access, push
from gptdynamics.settings.datasets import PushOptions

OnLine = Callable[[str], None]


class RunPusher:
    """Pushes each run when it has ended; without a repository it does nothing.

    Args:
        folder: the dataset folder.
        repo: `<owner>/<name>`, or None; raises GPTDynamicsError if it cannot be pushed to.
        no_texts: leave out texts that are not our own.
        on_run: called with a line for each run that went up.
        on_note: called with a line when a run could not go up.
    """

    def __init__(self, folder: Path, repo: str | None, no_texts: bool, on_run: OnLine, on_note: OnLine) -> None:
        self.folder, self.repo, self.no_texts = folder, repo, no_texts
        self.on_run, self.on_note = on_run, on_note
        if repo is not None:
            check_access(repo)

    def push_run(self, run: str) -> None:
        """Push everything. A failure is only noted: the run goes up with the next."""
        try:
            self.push_all()
        except GPTDynamicsError as error:
            self.on_note(f"note: {run} is not on the Hub yet: {error}")

    def push_all(self) -> None:
        """Push everything; raises as `push`."""
        folder = DatasetFolder(self.folder)
        if self.repo is None or not any(folder.finished(config) for config in folder.configs()):
            return
        for run in push(self.folder, self.repo, PushOptions(no_texts=self.no_texts)).runs:
            self.on_run(f"{run} is in {self.repo}")
