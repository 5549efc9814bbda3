"""Claims the name of a run that is being recorded, so that no other process records it."""

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
        held: whether this process has the claim.
    """

    def __init__(self, folder: DatasetFolder, config: str) -> None:
        self.folder, self.config = folder, config
        self.run: str | None = None
        self.held = False
        self._claims = Claims(folder.root)

    def take(self, requested: str | None, resumed: bool = False) -> str:
        """Claim a run by name, or the next free number.

        Args:
            requested: the name; None: the next free number, without those of failed runs.
            resumed: whether it continues a run from a checkpoint.

        Raises:
            SettingsError: the folder has the run, or another process records it.
        """
        taken = {*self.folder.finished(self.config), *(self.folder.failed(self.config) if requested is None else ())}
        names = [requested] if requested is not None else map(run_name, range(len(taken) + 10**6))
        for name in names:
            claim = f"{self.config}.{name}"
            if name in taken or not self._claims.take(claim):
                continue
            if name in self.folder.finished(self.config):
                # Another process has finished it since the list was read.
                self._claims.give_back(claim)
                continue
            self.run, self.held = name, True
            if self.unfinished.exists() and not resumed:
                logger.warning(
                    "an earlier training of run %s of %s did not finish: its unfinished record in %s is replaced",
                    name,
                    self.config,
                    self.unfinished,
                )
            return name
        if requested in taken:
            raise SettingsError(
                f"{self.folder.root} already has run {requested} of {self.config}: give another name, or none"
            )
        raise SettingsError(f"run {requested} of {self.config} is being recorded by another process")

    @property
    def unfinished(self) -> Path:
        """The file of the run's record until it ends."""
        return unfinished_path(self.folder.root, self.config, str(self.run))

    def whole_folder(self) -> AbstractContextManager[None]:
        """Lock the files that several processes write: examples, manifests, the card."""
        return self._claims.whole_folder()

    def give_back(self) -> None:
        """Release the claim."""
        if self.held:
            self._claims.give_back(f"{self.config}.{self.run}")
            self.held = False
