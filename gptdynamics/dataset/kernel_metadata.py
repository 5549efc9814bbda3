"""The metadata of a file of projected gradient products, a kernel."""

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
        DataError: the file cannot be read, or its metadata is damaged.
    """
    # Raises an error for a damaged file before its footer is read.
    read_parquet(path, [])
    text = (pq.read_schema(path).metadata or {}).get(_KEY)
    if text is None:
        return None
    values = parse_object(text, str(path))
    try:
        steps = [KernelCheckpoint.of(checkpoint) for checkpoint in values["checkpoints"]]
        kernel = RunKernel(int(values["columns"]), int(values["seed"]), tuple(steps))
        numbers = all(
            type(checkpoint.step) is int and checkpoint.error >= 0 and 0 <= checkpoint.covered <= 1.01
            for checkpoint in steps
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its kernel metadata is damaged ({error}). Compute the kernel again") from error
    order = [checkpoint.step for checkpoint in steps]
    if not steps or not numbers or order != sorted(set(order)) or order[0] < 0:
        raise DataError(f"{path}: its kernel metadata is damaged (steps or errors). Compute the kernel again")
    return kernel
