"""Reading Parquet files that may be damaged, and columns of lists as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.dataset.checks.findings import AGAIN, Findings
from gptdynamics.dataset.parquet import DamagedParquet, load_parquet


def checked_table(findings: Findings, path: Path, schema: pa.Schema, remedy: str = AGAIN) -> pa.Table | None:
    """A file's table with the columns that have the right type; None if it cannot be read."""
    table = readable_table(findings, path, remedy)
    return None if table is None else sound_columns(findings, path, table, schema, remedy)


def readable_table(findings: Findings, path: Path, remedy: str = AGAIN) -> pa.Table | None:
    """A file's table with all of its columns; None if it cannot be read."""
    try:
        table = load_parquet(path)
    except DamagedParquet as error:
        findings.add(path, error.column, error.reason, remedy)
        return None
    findings.rows += table.num_rows
    return table


def sound_columns(findings: Findings, path: Path, table: pa.Table, schema: pa.Schema, remedy: str = AGAIN) -> pa.Table:
    """The table's columns that are in the schema and have its type; other columns become faults."""
    valid = []
    for field in schema:
        count = table.column_names.count(field.name)
        if count != 1:
            findings.add(path, field.name, "the column occurs twice" if count else "the column is missing", remedy)
        elif table[field.name].type != field.type:
            findings.add(path, field.name, f"the column is {table[field.name].type}, not {field.type}", remedy)
        else:
            valid.append(field.name)
    for name in table.column_names:
        if name not in schema.names:
            findings.add(path, name, "unexpected column", remedy)
    if len(valid) == len(schema.names) == len(table.column_names) and table.column_names != schema.names:
        findings.add(path, "", f"its columns are not in the order {', '.join(schema.names)}", remedy)
    return table.select(valid)


@dataclass(frozen=True)
class Lists:
    """A column of lists of numbers.

    Attributes:
        valid: `[rows]` whether there is a list.
        lengths: `[rows]` its length; 0 if it is null.
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

    def position(self, index: int) -> tuple[int, int]:
        """Row, and position in its list, of a number in `flat`."""
        ends = np.cumsum(self.lengths)
        row = int(np.searchsorted(ends, index, side="right"))
        return row, int(index - (ends[row] - self.lengths[row]))

    def row(self, row: int) -> list[int | float]:
        """The list of a row."""
        start = int(self.lengths[:row].sum())
        return self.flat[start : start + int(self.lengths[row])].tolist()

    def differs(self, expected: np.ndarray) -> np.ndarray:
        """`[rows]` whether the row's list is not `expected`, or is null."""
        wrong = ~self.valid | (self.lengths != len(expected))
        comparable = np.flatnonzero(~wrong)
        if len(comparable):
            inside = np.repeat(~wrong, self.lengths)
            values = self.flat[inside].reshape(len(comparable), len(expected))
            wrong[comparable] = (values != expected).any(axis=1)
        return wrong
