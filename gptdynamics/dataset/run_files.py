"""Reading and checking the two files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.dataset.schema import GRADIENT_COLUMNS, RECORDED_RUN_SCHEMA, RUN_SCHEMA, read_parquet, with_types
from gptdynamics.errors import DataError
from gptdynamics.metrics import METRICS

_AGAIN = "Move it out of the folder and run the same collect command again, or restore it"
_VALUES = (pa.list_(pa.float32()), pa.list_(pa.float64()))
_STEPS = ("step", "generation_step", "gradient_step")
_REQUIRED = ("run", "config", "task", "base_model", "base_revision", "curriculum", "learning_rate", "batch_size")


def read_run_row(path: Path, config: str, run: str) -> dict[str, Any]:
    """The one row that describes a run, with None for missing columns.

    Raises DataError if the file is missing or damaged, does not have one row, or belongs to another run.
    """
    table = read_parquet(path)
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: the column {missing[0]} is missing. {_AGAIN}")
    if table.num_rows != 1:
        raise DataError(f"{path}: it has {table.num_rows} rows, but must have only that of run {run}. {_AGAIN}")
    table = _typed(table, path)
    row: dict[str, Any] = dict.fromkeys([*RUN_SCHEMA.names, *RECORDED_RUN_SCHEMA.names]) | table.to_pylist()[0]
    if (row["config"], row["run"]) != (config, run):
        raise DataError(
            f"{path}: it belongs to run {row['run']} of {row['config']}, not to run {run} of {config}. {_AGAIN}"
        )
    curriculum, rates = row["curriculum"], row["learning_rate"]
    valid = isinstance(curriculum, list) and all(
        isinstance(batch, list) and all(key is not None and key >= 0 for key in batch) for batch in curriculum
    )
    if not valid:
        raise DataError(f"{path}: its curriculum is not a list of batches of ids. {_AGAIN}")
    if curriculum and not any(curriculum):
        raise DataError(f"{path}: all batches of its curriculum are empty. {_AGAIN}")
    if not isinstance(rates, list) or len(rates) != len(curriculum):
        raise DataError(f"{path}: it must have a learning rate for each of its {len(curriculum)} updates. {_AGAIN}")
    if not all(rate is not None and np.isfinite(rate) for rate in rates):
        raise DataError(f"{path}: its learning rates are not finite. {_AGAIN}")
    return row


def read_trajectories(path: Path, run: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Trajectories of a run: a row for each test example; `columns` None: all of them.

    Raises DataError if the file is missing or damaged, has no rows, or belongs to another run.
    """
    table = read_parquet(path, None if columns is None else list(dict.fromkeys(["run", "test_id", *columns])))
    for name in ("run", "test_id", *(["step"] if columns is None else [])):
        if name not in table.column_names:
            raise DataError(f"{path}: the column {name} is missing. {_AGAIN}")
    if not table.num_rows:
        raise DataError(f"{path}: it has no rows. {_AGAIN}")
    table = _typed(table, path, columns or ())
    runs = sorted(set(table["run"].to_pylist()), key=str)
    if runs != [run]:
        raise DataError(f"{path}: it belongs to run {', '.join(map(str, runs[:3]))}, not to run {run}. {_AGAIN}")
    ids = table["test_id"]
    if ids.null_count or pc.count_distinct(ids).as_py() < len(ids) or pc.min(ids).as_py() < 0:
        raise DataError(f"{path}: its test_id must be different numbers from 0 on. {_AGAIN}")
    for name in _STEPS:
        if name in table.column_names:
            _check_steps(table[name], path, name)
    return table


def values_of(table: pa.Table, path: Path, metric: str, step_column: str) -> tuple[np.ndarray, np.ndarray]:
    """A metric of a run as arrays: the steps `[S]` at which it was measured, and its values `[M, S]`.

    `table` has the rows of the M test examples that have the metric, at least one; `path` is for messages. Raises
    DataError if the numbers of values and steps differ.
    """
    steps, values = table[step_column].combine_chunks(), table[metric].combine_chunks()
    if steps.null_count:
        raise DataError(f"{path}: {step_column} is null where {metric} is not. {_AGAIN}")
    step = np.array(steps[0].as_py(), dtype=np.int64)
    lengths = [pc.list_value_length(lists).to_numpy(zero_copy_only=False) for lists in (steps, values)]
    if any((lists != len(step)).any() for lists in lengths) or not len(step):
        raise DataError(f"{path}: {metric} must have a value for each {step_column}. {_AGAIN}")
    all_steps = steps.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
    if (all_steps != step).any():
        raise DataError(f"{path}: its test examples were measured at different steps. {_AGAIN}")
    return step, values.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)


def _typed(table: pa.Table, path: Path, metrics: Sequence[str] = ()) -> pa.Table:
    """The table with the expected types of its columns; wider types of other writers are converted."""
    types = {field.name: field.type for schema in (RUN_SCHEMA, RECORDED_RUN_SCHEMA) for field in schema}
    if "test_id" in table.column_names:
        lists = pa.list_(pa.int32())
        types = {"run": pa.string(), "test_id": pa.int32(), "task": pa.string(), **dict.fromkeys(_STEPS, lists)}
        values = {*METRICS, *GRADIENT_COLUMNS, *metrics}
        types |= {
            field.name: _VALUES[1]
            for field in table.schema
            if field.name not in types and field.name in values and field.type not in _VALUES
        }
    return with_types(table, types, path)


def _check_steps(column: pa.ChunkedArray, path: Path, name: str) -> None:
    for steps in {tuple(steps) for steps in column.to_pylist() if steps is not None}:
        ordered = all(step is not None for step in steps) and all(a < b for a, b in pairwise(steps))
        if not ordered or (steps and steps[0] < 0):
            raise DataError(f"{path}: {name} has steps that do not rise from 0. {_AGAIN}")
