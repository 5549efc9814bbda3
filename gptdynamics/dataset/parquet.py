"""Reading a Parquet file that may be damaged."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


class DamagedParquet(Exception):
    """A file cannot be read as Parquet, or its values do not agree with its footer.

    Attributes:
        column: the damaged column; empty: the file as a whole.
        reason: what is wrong.
    """

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(f"{column}: {reason}" if column else reason)
        self.column = column
        self.reason = reason


def load_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A file's table; `columns` None: all of them.

    Page checksums, if the file has them, must agree with its pages, and the statistics in its footer with its values:
    checksums do not cover the encoding of a page, and a damaged encoding gives other values for the same bytes.

    Raises:
        DamagedParquet: it is damaged, or lacks a column.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as stream:
            names = stream.schema_arrow.names
            stored = {stream.schema.column(index).path.split(".")[0] for index in range(len(stream.schema))}
            if stored != {name.split(".")[0] for name in names}:
                # The footer names them twice, for Parquet and for Arrow.
                raise DamagedParquet("", f"its footer names other columns than {', '.join(names)}")
            for name in columns or ():
                if name not in names:
                    raise DamagedParquet(name, "the column is missing")
            for name in names:
                if names.count(name) > 1:
                    raise DamagedParquet(name, "the column occurs twice")
            table = stream.read(None if columns is None else list(columns), use_threads=False)
            table.validate(full=True)
            problem = _statistics_problem(table, stream.metadata)
    except DamagedParquet:
        raise
    except Exception as error:  # the reader raises nearly any error for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedParquet("", f"cannot be read as Parquet ({reason})") from error
    if problem:
        raise DamagedParquet(*problem)
    return table


def _statistics_problem(table: pa.Table, metadata: Any) -> tuple[str, str] | None:
    """A column whose values differ from the least and greatest ones in the footer, and the difference; or None."""
    if metadata.num_rows != table.num_rows:
        return "", f"it has {table.num_rows} rows, its footer says {metadata.num_rows}"
    # Each of these is made anew when it is asked for.
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    schema, columns = metadata.schema, dict(zip(table.column_names, table.columns, strict=True))
    for column in range(metadata.num_columns):
        chunks = [group.column(column) for group in groups]
        name = chunks[0].path_in_schema.split(".")[0] if chunks else ""
        if name not in columns:
            continue
        kind = schema.column(column).physical_type
        if any(chunk.physical_type != kind for chunk in chunks):
            # pyarrow ends the process when it reads the statistics of such a column.
            return name, f"its footer says {kind} once, and another type in a row group"
        statistics = [chunk.statistics for chunk in chunks]
        if not statistics or not all(
            chunk_statistics is not None and chunk_statistics.has_min_max for chunk_statistics in statistics
        ):
            continue
        least, greatest = (
            min(chunk_statistics.min for chunk_statistics in statistics),
            max(chunk_statistics.max for chunk_statistics in statistics),
        )
        extremes = _extremes(columns[name].combine_chunks())
        if extremes != (least, greatest) and not any(
            isinstance(end, float) and not isfinite(end) for end in (least, greatest)
        ):
            return name, f"its values run from {_one_line(extremes)}, its footer says {_one_line((least, greatest))}"
    return None


def _one_line(ends: tuple[Any, Any]) -> str:
    """Two values on one line; texts may be long and have several lines."""
    texts = [repr(text) if isinstance(text, str | bytes) else str(text) for text in ends]
    return " to ".join(text if len(text) <= 60 else f"{text[:60]}..." for text in texts)


def _extremes(values: pa.Array) -> tuple[Any, Any]:
    """Least and greatest of the finite values in lists, or lists of lists."""
    while pa.types.is_list(values.type):
        values = values.flatten()
    if pa.types.is_floating(values.type):
        numbers = values.drop_null().to_numpy()
        numbers = numbers[np.isfinite(numbers)]
        return (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
    ends = pc.min_max(values)
    return ends["min"].as_py(), ends["max"].as_py()
