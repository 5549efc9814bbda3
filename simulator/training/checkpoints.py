"""Checkpoints of a training: a killed one continues and gives the same bits as an undisturbed one.

A folder holds `settings.json`, what the training is of, and for each fit a `<name>.safetensors` whose tensors are
weights, optimiser and random state, and whose metadata hold the rest as JSON.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gptdynamics.atomic import write_text
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.parsing import parse_object, read_bytes
from gptdynamics.tensor_files import read_tensors, write_tensors


@dataclass
class Checkpoints:
    """The checkpoints of one training, in a folder, at least `seconds` apart for each fit.

    `settings` are everything that the result depends on, as plain values.
    """

    folder: Path
    settings: Mapping[str, Any]
    seconds: float = 30.0
    _saved: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """See that what is in the folder, if anything, belongs to this training.

        Raises:
            SettingsError: it is of another training; the message says in what they differ.
            DataError: it is damaged.
        """
        path = self.folder / "settings.json"
        if not path.exists():
            return
        current = json.loads(json.dumps(dict(self.settings)))
        try:
            saved = parse_object(read_bytes(path), "not of a training")
        except DataError as error:
            raise self._damaged(path, error) from error
        names = sorted(saved.keys() | current.keys())
        differ = [
            f"{name}: there {saved.get(name)!r}, now {current.get(name)!r}"
            for name in names
            if saved.get(name) != current.get(name)
        ]
        if differ:
            raise SettingsError(
                f"{self.folder} has checkpoints of another training ({'; '.join(differ)}). Go on with the same "
                "settings, or delete that folder to begin anew"
            )

    def due(self, name: str) -> bool:
        """Whether a fit should save now."""
        return time.monotonic() - self._saved.setdefault(name, time.monotonic()) >= self.seconds

    def save(self, name: str, tensors: Mapping[str, torch.Tensor], progress: Mapping[str, Any]) -> None:
        """Save the state of a fit over that saved before.

        Raises:
            DataError: it cannot be written.
        """
        about = self.folder / "settings.json"
        if not about.exists():
            write_text(about, json.dumps(dict(self.settings), indent=1) + "\n")
        arrays = {key: value.detach().cpu().contiguous().numpy() for key, value in tensors.items()}
        write_tensors(self._path(name), arrays, progress, "progress")
        self._saved[name] = time.monotonic()

    def load(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The saved state of a fit, tensors and progress; None if there is none.

        Raises:
            DataError: it is damaged.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            arrays, progress = read_tensors(path, "progress")
        except DataError as error:
            raise self._damaged(path, error) from error
        return {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}, progress

    def remove(self) -> None:
        """Delete all: the training is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _damaged(self, path: Path, error: Exception) -> DataError:
        reason = str(error).removeprefix(f"{path}: it is damaged (").removesuffix(")")
        return DataError(f"{path}: a damaged checkpoint ({reason}). Delete {self.folder} to begin anew")
