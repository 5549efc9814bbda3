"""What the file of a run's gradient products says of itself where they are projected: a kernel."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq

from gptdynamics.dataset.schema import read_parquet
from gptdynamics.errors import DataError
from gptdynamics.parsing import parse_object
from gptdynamics.runs.run import KernelCheckpoint, RunKernel

_KEY = b"gptdynamics.kernel"


def kernel_metadata(kernel: RunKernel) -> dict[bytes, bytes]:
    """The metadata of a Parquet file that holds a kernel."""
    return {_KEY: json.dumps(asdict(kernel), sort_keys=True).encode()}


def read_kernel(path: Path) -> RunKernel | None:
    """How the products in a file were projected; None: they are exact.

    Raises:
        DataError: the file cannot be read, or what it says of its kernel is damaged.
    """
    # Refuses a damaged file before its footer is looked at.
    read_parquet(path, [])
    text = (pq.read_schema(path).metadata or {}).get(_KEY)
    if text is None:
        return None
    values = parse_object(text, str(path))
    try:
        steps = [KernelCheckpoint.of(each) for each in values["checkpoints"]]
        kernel = RunKernel(int(values["columns"]), int(values["seed"]), tuple(steps))
        numbers = all(type(each.step) is int and each.error >= 0 and 0 <= each.covered <= 1.01 for each in steps)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: what it says of its kernel is damaged ({error}). Take the kernel again") from error
    order = [each.step for each in steps]
    if not steps or not numbers or order != sorted(set(order)) or order[0] < 0:
        raise DataError(f"{path}: what it says of its kernel is damaged (steps or errors). Take the kernel again")
    return kernel
