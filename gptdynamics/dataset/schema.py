"""Columns of a dataset repository, and how they are laid out in Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gptdynamics.atomic import write_atomically
from gptdynamics.dataset.parquet import DamagedParquet, load_parquet
from gptdynamics.errors import DataError
from gptdynamics.metrics import Metric, names_of

# The remedy for a damaged file of a dataset.
COLLECT_AGAIN = "Move it out of the folder and run the same collect command again"

GRADIENT_COLUMNS = ("grad_dot", "update_dot")

_STEPS = pa.list_(pa.int32())
_VALUES = pa.list_(pa.float32())
_WIDE_VALUES = pa.list_(pa.float64())


def trajectory_schema(
    metrics: Sequence[Metric], mixture: bool = False, gradients: bool = False, wide: bool = False
) -> pa.Schema:
    """A row for each (run, test example); metrics that need text have their own list of steps.

    Args:
        metrics: of the config.
        mixture: whether there is a column for the task, because test examples are of several tasks.
        gradients: whether some runs of the config record gradient products.
        wide: whether metrics are 64-bit numbers, as in imported runs, so that their values can be exported unchanged.
    """
    values = _WIDE_VALUES if wide else _VALUES
    columns: list[tuple[str, pa.DataType]] = [("run", pa.string()), ("test_id", pa.int32())]
    columns += [("task", pa.string())] if mixture else []
    columns.append(("step", _STEPS))
    columns += [(name, values) for name in names_of(metrics, needs_text=False)]
    generated = names_of(metrics, needs_text=True)
    if generated:
        columns.append(("generation_step", _STEPS))
        columns += [(name, values) for name in generated]
    if gradients:
        columns.append(("gradient_step", _STEPS))
        columns += [(name, _VALUES) for name in GRADIENT_COLUMNS]
    return pa.schema(columns)


GRADIENT_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("step", pa.int32()),
        ("part", pa.string()),
        ("id", pa.int32()),
        ("products", _VALUES),
        ("vector", _VALUES),
        ("projection_seed", pa.int64()),
    ]
)

_RUN_COLUMNS = pa.schema(
    [
        ("run", pa.string()),
        ("config", pa.string()),
        ("task", pa.string()),
        ("scenario", pa.string()),
        ("base_model", pa.string()),
        ("base_revision", pa.string()),
        ("seed", pa.int64()),
        ("index", pa.int32()),
        ("curriculum", pa.list_(pa.list_(pa.int32()))),
        ("learning_rate", _VALUES),
        ("optimizer", pa.string()),
        ("schedule", pa.string()),
        ("peak_learning_rate", pa.float64()),
        ("weight_decay", pa.float64()),
        ("beta1", pa.float64()),
        ("beta2", pa.float64()),
        ("epsilon", pa.float64()),
        ("batch_size", pa.int32()),
        ("epochs", pa.int32()),
        ("pool_size", pa.int32()),
        ("subset", pa.int32()),
        ("max_length", pa.int32()),
        ("lora_rank", pa.int32()),
        ("lora_alpha", pa.int32()),
        ("lora_dropout", pa.float64()),
        ("precision", pa.string()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("eval_every", pa.int32()),
        ("generate_every", pa.int32()),
        ("gradients", pa.string()),
        ("versions", pa.string()),
    ]
)

# The run that a counterfactual run repeats, and the pool rows that it leaves out. Earlier releases lack both columns.
COUNTERFACTUAL_COLUMNS = ("repeats", "left_out")
RUN_SCHEMA = _RUN_COLUMNS.append(pa.field("repeats", pa.string())).append(pa.field("left_out", pa.list_(pa.int32())))

# The settings of a user's training are one JSON object.
RECORDED_RUN_SCHEMA = _RUN_COLUMNS.append(pa.field("hyperparameters", pa.string()))

EXAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.int32()),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("references", pa.list_(pa.string())),
        ("task", pa.string()),
        ("source", pa.string()),
    ]
)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table atomically, laid out for quick reading of single trajectories.

    zstd, row groups of 1000, content-defined chunking; float lists are byte-stream-split and never dictionary-encoded.
    A table of a single row, as of a run, has no page index, statistics or dictionaries, which take more room than it.
    """
    several = table.num_rows > 1
    floats = [
        f"{field.name}.list.element"
        for field in table.schema
        if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type)
    ]
    plain_columns = [field.name for field in table.schema if not pa.types.is_nested(field.type)]

    def write(target: Path) -> None:
        pq.write_table(
            table,
            target,
            compression="zstd",
            row_group_size=1000,
            write_page_index=several,
            write_statistics=several,
            write_page_checksum=True,
            use_content_defined_chunking=True,
            use_dictionary=plain_columns if several else False,
            # Arrow's own copy of the schema adds nothing but the table's metadata.
            store_schema=bool(table.schema.metadata),
            use_byte_stream_split=floats,
        )

    write_atomically(path, write)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file; raises DataError with the remedy if it is missing, damaged, or lacks a column."""
    try:
        return load_parquet(path, columns)
    except DamagedParquet as error:
        raise DataError(f"{path}: {error}. {COLLECT_AGAIN}") from error


def with_types(table: pa.Table, types: Mapping[str, pa.DataType], path: Path) -> pa.Table:
    """A table whose columns have these types; wider types of other writers are narrowed.

    Raises DataError if a column of the file `path` cannot have its type without loss.
    """
    for index, field in enumerate(table.schema):
        expected = types.get(field.name, field.type)
        if field.type == expected:
            continue
        try:
            table = table.set_column(index, pa.field(field.name, expected), table[field.name].cast(expected))
        except pa.ArrowException as error:
            raise DataError(f"{path}: {field.name} is {field.type}, not {expected}. {COLLECT_AGAIN}") from error
    return table
