"""Reading Parquet files that may be damaged, and looking at columns of lists as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptdynamics.dataset.checks.findings import AGAIN, Findings


def checked_table(
    findings: Findings, path: Path, schema: pa.Schema, remedy: str = AGAIN, statistics: bool = True
) -> pa.Table | None:
    """A file's table, with those columns that are of the right type; None if it cannot be read."""
    table = readable_table(findings, path, remedy, statistics)
    return None if table is None else sound_columns(findings, path, table, schema, remedy)


def readable_table(findings: Findings, path: Path, remedy: str = AGAIN, statistics: bool = True) -> pa.Table | None:
    """A file's table, whatever its columns are; None if it cannot be read.

    Page checksums, where the file has them, must agree with its pages, and the statistics in its footer with its
    values. Checksums do not cover how a page says it is encoded: a wrong encoding makes other values of the same bytes.

    Args:
        findings: gathers the faults.
        path: the file.
        remedy: for what is wrong with it.
        statistics: leave them out where every value is compared with what is known otherwise.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as stream:
            table = stream.read(use_threads=False)
            table.validate(full=True)
            odd = _statistics_problem(table, stream.metadata) if statistics else None
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        findings.add(path, "", f"cannot be read as Parquet ({reason})", remedy)
        return None
    if odd:
        findings.add(path, *odd, remedy)
        return None
    findings.rows += table.num_rows
    return table


def sound_columns(findings: Findings, path: Path, table: pa.Table, schema: pa.Schema, remedy: str = AGAIN) -> pa.Table:
    """The table's columns that the schema has, too, with the same type; the others are faults."""
    sound = []
    for field in schema:
        if table.column_names.count(field.name) != 1:
            count = table.column_names.count(field.name)
            findings.add(path, field.name, "the column occurs twice" if count else "the column is missing", remedy)
        elif table[field.name].type != field.type:
            findings.add(path, field.name, f"the column is {table[field.name].type}, not {field.type}", remedy)
        else:
            sound.append(field.name)
    for name in table.column_names:
        if name not in schema.names:
            findings.add(path, name, "there should be no such column", remedy)
    if len(sound) == len(schema.names) == len(table.column_names) and table.column_names != schema.names:
        findings.add(path, "", f"its columns are not in the order {', '.join(schema.names)}", remedy)
    return table.select(sound)


def _statistics_problem(table: pa.Table, metadata: Any) -> tuple[str, str] | None:
    """Where the footer's least and greatest values are not those of the column: a column, and what is wrong."""
    if metadata.num_rows != table.num_rows:
        return "", f"it has {table.num_rows} rows, its footer says {metadata.num_rows}"
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    for place in range(metadata.num_columns):
        chunks = [group.column(place) for group in groups]
        name = chunks[0].path_in_schema.split(".")[0] if chunks else ""
        said = [chunk.statistics for chunk in chunks]
        if not said or not all(each is not None and each.has_min_max for each in said):
            continue
        least, most = min(each.min for each in said), max(each.max for each in said)
        found = _extremes(table[name].combine_chunks())
        if found != (least, most) and not any(isinstance(at, float) and not isfinite(at) for at in (least, most)):
            return name, f"its values run from {found[0]} to {found[1]}, its footer says {least} to {most}"
    return None


def _extremes(values: pa.Array) -> tuple[Any, Any]:
    """Least and greatest of the values in lists, or lists of lists; those that are not finite do not count."""
    while pa.types.is_list(values.type):
        values = values.flatten()
    if pa.types.is_floating(values.type):
        numbers = values.drop_null().to_numpy()
        numbers = numbers[np.isfinite(numbers)]
        return (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
    found = pc.min_max(values)
    return found["min"].as_py(), found["max"].as_py()


@dataclass(frozen=True)
class Lists:
    """A column of lists of numbers.

    Attributes:
        valid: `[rows]` whether there is a list.
        lengths: `[rows]` its length; 0 where there is none.
        flat: all lists' numbers, one after the other; null numbers are NaN.
    """

    valid: np.ndarray
    lengths: np.ndarray
    flat: np.ndarray

    @classmethod
    def of(cls, table: pa.Table, name: str) -> Lists:
        """The column `name` of a table."""
        column = table[name].combine_chunks()
        lengths = pc.fill_null(column.value_lengths(), 0).to_numpy(zero_copy_only=False)
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return cls(column.is_valid().to_numpy(zero_copy_only=False), lengths, flat)

    def place(self, index: int) -> tuple[int, int]:
        """Row, and place in its list, of a number in `flat`."""
        ends = np.cumsum(self.lengths)
        row = int(np.searchsorted(ends, index, side="right"))
        return row, int(index - (ends[row] - self.lengths[row]))

    def row(self, row: int) -> list[int | float]:
        """The list of a row."""
        start = int(self.lengths[:row].sum())
        return self.flat[start : start + int(self.lengths[row])].tolist()

    def differs(self, wanted: np.ndarray) -> np.ndarray:
        """`[rows]` whether the row's list is not `wanted`, or is null."""
        wrong = ~self.valid | (self.lengths != len(wanted))
        alike = np.flatnonzero(~wrong)
        if len(alike):
            inside = np.repeat(~wrong, self.lengths)
            each = self.flat[inside].reshape(len(alike), len(wanted))
            wrong[alike] = (each != wanted).any(axis=1)
        return wrong
