"""The unfinished record of a run, saved with each checkpoint and, in case of a crash, in the dataset folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.runs.run import KernelCheckpoint
from gptdynamics.tensor_files import read_tensors, write_tensors

NAME = "gptdynamics_recording.safetensors"
# In a dataset folder; hidden, so that nobody reads or publishes it as data.
UNFINISHED = ".recordings"


@dataclass(frozen=True)
class Partial:
    """The record of a run after some updates.

    Attributes:
        config, run: names of the config and the run.
        recorded: settings that the runs of the config share; plain values.
        base_revision: of the model that the run started from.
        curriculum, rates: batches of pool numbers, and learning rates, of the updates so far.
        step, generation_step: steps at which the loss, and generated text, were measured.
        values: `[test examples, measured steps]` float32 by metric.
        failure: why the run failed; empty if it did not.
        kernels: the plan of its kernels, see `kernel_plan`; None: it has none.
        kernel_checkpoints: errors of the kernels so far.
        products: `[pool, test examples]` float32 by step: the kernels so far.
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
    kernels: dict[str, Any] | None = None
    kernel_checkpoints: list[KernelCheckpoint] = field(default_factory=list)
    products: dict[int, np.ndarray] = field(default_factory=dict)


_ARRAYS = ("values", "products")
_PLAIN = [each.name for each in fields(Partial) if each.name not in _ARRAYS]
# Prefix of the names of kernels' arrays; names of metrics have no dots.
_PRODUCTS = "products."


def unfinished_path(folder: Path, config: str, run: str) -> Path:
    """The file of an unfinished run's record in a dataset folder."""
    return folder / UNFINISHED / f"{config}.{run}.safetensors"


def save_partial(path: Path, partial: Partial) -> None:
    """Write a record to a file, atomically.

    Raises:
        DataError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: getattr(partial, name) for name in _PLAIN}
    plain["kernel_checkpoints"] = [asdict(checkpoint) for checkpoint in partial.kernel_checkpoints]
    products = {f"{_PRODUCTS}{step}": checkpoint for step, checkpoint in partial.products.items()}
    write_tensors(path, partial.values | products, plain, "recording")


def read_partial(path: Path) -> Partial:
    """Read a record.

    Raises:
        DataError: the file is damaged.
    """
    try:
        arrays, plain = read_tensors(path, "recording")
        values = {name: array for name, array in arrays.items() if not name.startswith(_PRODUCTS)}
        lengths = {len(plain["step"]), len(plain["generation_step"])}
        if other := next((name for name, array in values.items() if array.shape[-1] not in lengths), None):
            raise ValueError(f"{other} is not of {' or '.join(map(str, sorted(lengths)))} steps")
        products = {int(name.removeprefix(_PRODUCTS)): arrays[name] for name in arrays.keys() - values.keys()}
        # Records of earlier versions have no kernels.
        checkpoints = [KernelCheckpoint.of(array) for array in plain.pop("kernel_checkpoints", [])]
        return Partial(**plain, values=values, kernel_checkpoints=checkpoints, products=dict(sorted(products.items())))
    except (TypeError, ValueError, KeyError, DataError) as error:
        raise DataError(f"{path}: the file is damaged ({error}). Resume from another checkpoint") from error


def load_partial(checkpoint: Path, updates: int) -> Partial:
    """Read the record that was saved with a checkpoint.

    Args:
        checkpoint: its folder.
        updates: number of updates before it.

    Raises:
        SettingsError: the training was not recorded before the checkpoint.
        DataError: the file is damaged, or has another number of updates.
    """
    path = checkpoint / NAME
    if not path.is_file():
        raise SettingsError(
            f"{checkpoint} has no record of the {updates} updates before it, because they were not recorded. "
            "Train from the start, or resume from a checkpoint that was made with the recorder"
        )
    partial = read_partial(path)
    if not (len(partial.curriculum) == len(partial.rates) == updates or partial.failure):
        raise DataError(f"{path}: the record does not have {updates} updates. Resume from another checkpoint")
    return partial
