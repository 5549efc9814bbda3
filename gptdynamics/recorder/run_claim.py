"""The name of a run that is being recorded: claimed, so that no other process records it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path

from gptdynamics.collection.claims import Claims
from gptdynamics.configs import run_name
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import SettingsError
from gptdynamics.recorder.checkpoint import unfinished_path

logger = logging.getLogger(__name__)


class RunClaim:
    """A claim on one run of a config.

    Args:
        folder: the dataset folder.
        config: of the run.

    Attributes:
        run: name of the run; None until one was claimed.
        held: whether the claim is ours now.
    """

    def __init__(self, folder: DatasetFolder, config: str) -> None:
        self.folder, self.config = folder, config
        self.run: str | None = None
        self.held = False
        self._claims = Claims(folder.root)

    def take(self, wanted: str | None, resumed: bool = False) -> str:
        """Claim a run by name, or the next free number.

        Args:
            wanted: the name; None: the next free number, and not that of a failed run.
            resumed: whether the run was begun before and continues.

        Raises:
            SettingsError: the folder has the run, or another process records it.
        """
        taken = {*self.folder.finished(self.config), *(self.folder.failed(self.config) if wanted is None else ())}
        names = [wanted] if wanted is not None else map(run_name, range(len(taken) + 10**6))
        for name in names:
            claim = f"{self.config}.{name}"
            if name in taken or not self._claims.take(claim):
                continue
            if name in self.folder.finished(self.config):
                # Another process has finished it since we looked.
                self._claims.give_back(claim)
                continue
            self.run, self.held = name, True
            if self.unfinished.exists() and not resumed:
                logger.warning(
                    "run %s of %s was begun by a training that did not end: its unfinished record in %s is replaced",
                    name,
                    self.config,
                    self.unfinished,
                )
            return name
        if wanted in taken:
            raise SettingsError(f"{self.folder.root} has run {wanted} of {self.config}: name another run, or none")
        raise SettingsError(f"run {wanted} of {self.config} is being recorded by another process")

    @property
    def unfinished(self) -> Path:
        """Where the record of the run is kept until it ends."""
        return unfinished_path(self.folder.root, self.config, str(self.run))

    def whole_folder(self) -> AbstractContextManager[None]:
        """Hold what several processes write: examples, manifests, the card."""
        return self._claims.whole_folder()

    def give_back(self) -> None:
        """End the claim."""
        if self.held:
            self._claims.give_back(f"{self.config}.{self.run}")
            self.held = False
