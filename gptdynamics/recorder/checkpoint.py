"""What a recording knows so far, kept where training goes on from and where a crash leaves it."""

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
    """What a recording knows after some updates; it is kept with a checkpoint of the training.

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
    """Where the record of a run that has not ended is kept in a dataset folder."""
    return folder / UNFINISHED / f"{config}.{run}.safetensors"


def save_partial(path: Path, partial: Partial) -> None:
    """Write what is known into a file, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, partial.values, {name: getattr(partial, name) for name in _PLAIN}, "recording")


def read_partial(path: Path) -> Partial:
    """Read such a file.

    Raises:
        DataError: it is damaged.
    """
    try:
        values, plain = read_tensors(path, "recording")
        return Partial(**plain, values=values)
    except (TypeError, DataError) as error:
        raise DataError(f"{path}: it is damaged ({error}). Resume from another checkpoint") from error


def load_partial(checkpoint: Path, updates: int) -> Partial:
    """Read what was known when a checkpoint was made.

    Args:
        checkpoint: its folder.
        updates: that training had made by then.

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
