"""The record of a run so far, saved with each checkpoint and, against crashes, in the dataset folder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.tensor_files import read_tensors, write_tensors

NAME = "gptdynamics_recording.safetensors"
# In a dataset folder; hidden, so that nobody reads or publishes it as data.
UNFINISHED = ".recordings"


@dataclass(frozen=True)
class Partial:
    """The record of a run after some updates.

    Attributes:
        config, run: which run it is.
        recorded: what the runs of the config share; plain values.
        base_revision: of the model that the run started from.
        curriculum, rates: batches of pool numbers, and learning rates, of the updates so far.
        step, generation_step: at which loss, and text, were measured.
        values: `[measured steps, test examples]` float32 by metric.
        failure: why the run has no numbers; empty if it has.
    """

    config: str
    run: str
    recorded: dict[str, Any]
    base_revision: str
    curriculum: list[list[int]]
    rates: list[float]
    step: list[int]
    generation_step: list[int]
    values: dict[str, np.ndarray]
    failure: str


_PLAIN = [field.name for field in fields(Partial) if field.name != "values"]


def unfinished_path(folder: Path, config: str, run: str) -> Path:
    """The file of an unfinished run's record in a dataset folder."""
    return folder / UNFINISHED / f"{config}.{run}.safetensors"


def save_partial(path: Path, partial: Partial) -> None:
    """Write a record into a file, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, partial.values, {name: getattr(partial, name) for name in _PLAIN}, "recording")


def read_partial(path: Path) -> Partial:
    """Read a record.

    Raises:
        DataError: the file is damaged.
    """
    try:
        values, plain = read_tensors(path, "recording")
        return Partial(**plain, values=values)
    except (TypeError, DataError) as error:
        raise DataError(f"{path}: it is damaged ({error}). Resume from another checkpoint") from error


def load_partial(checkpoint: Path, updates: int) -> Partial:
    """Read the record that was saved with a checkpoint.

    Args:
        checkpoint: its folder.
        updates: number of updates before it.

    Raises:
        SettingsError: nothing was recorded then.
        DataError: the file is damaged, or of another moment.
    """
    path = checkpoint / NAME
    if not path.is_file():
        raise SettingsError(
            f"{checkpoint} has no recording of the {updates} updates before it: training was not recorded then. "
            "Train from the start, or resume from a checkpoint that was made with the recorder"
        )
    partial = read_partial(path)
    if not (len(partial.curriculum) == len(partial.rates) == updates or partial.failure):
        raise DataError(f"{path}: it is not of {updates} updates. Resume from another checkpoint")
    return partial
