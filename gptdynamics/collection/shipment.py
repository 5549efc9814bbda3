"""The contents of a bench, in a form that needs no files of the machine that sends it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.models.base_model import SIZES, load_base_model, model_revision
from gptdynamics.runs.bench import Bench, BenchContents
from gptdynamics.scratch import scratch_folder
from gptdynamics.tasks.kept_tasks import kept_task_texts, use_kept_texts
from gptdynamics.tasks.user_tasks import task_file_texts, use_task_files

if TYPE_CHECKING:
    from gptdynamics.collection.jobs import RunJob
    from gptdynamics.models.base_model import BaseModel

# The files that `from_pretrained` reads from a folder: configuration, weights, and the tokenizers' files.
_MODEL_FILES = (".json", ".safetensors", ".txt", ".model", ".tiktoken", ".jinja")


@dataclass(frozen=True)
class Shipment:
    """The contents of a config's bench.

    `model_files` are the bytes of a base model's folder by file name; None: nodes load the base model by its name.
    """

    contents: BenchContents
    base_revision: str
    model_files: dict[str, np.ndarray] | None
    task_files: list[tuple[str, str]]
    kept_tasks: list[tuple[str, str]]

    @classmethod
    def pack(cls, job: RunJob) -> Shipment:
        """The contents of the bench of a job's config."""
        settings = job.settings
        folder = Path(settings.base)
        files: dict[str, np.ndarray] | None = None
        if settings.base not in SIZES and folder.is_dir():
            paths = (path for path in sorted(folder.iterdir()) if path.suffix in _MODEL_FILES and path.is_file())
            # As arrays, they stay in the nodes' shared memory, and workers need no copies.
            files = {path.name: np.fromfile(path, dtype=np.uint8) for path in paths}
        revision = model_revision(settings.base)
        return cls(job.load_contents(), revision, files, task_file_texts(), kept_task_texts())

    def unpack(self, device: str) -> Bench:
        """Open the bench, on another machine.

        Raises:
            GPTDynamicsError: it cannot be opened there, or its base model has other weights; names the machine.
        """
        try:
            with scratch_folder() as folder:
                use_task_files(self.task_files, Path(folder) / "tasks")
                use_kept_texts(self.kept_tasks, Path(folder) / "kept")
                base = self._load_base(Path(folder) / "model", device)
            if base.revision != self.base_revision:
                raise SettingsError(
                    f"its {base.name} has revision {base.revision}, that of the collecting machine "
                    f"{self.base_revision}. Give both the same weights"
                )
            return Bench(self.contents, device, base)
        except GPTDynamicsError as error:
            raise type(error)(f"node {platform.node()}: {error}") from error

    def _load_base(self, folder: Path, device: str) -> BaseModel:
        if self.model_files is None:
            return load_base_model(self.contents.settings.base, device)
        folder.mkdir()
        for name, content in self.model_files.items():
            content.tofile(folder / name)
        return load_base_model(os.fspath(folder), device)
