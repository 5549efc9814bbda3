"""Rules for gradient products of a run, and for projected gradients of a config's base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.dataset.checks.facts import ConfigFacts
from gptdynamics.dataset.checks.findings import AGAIN, Findings, Problem, Problems, first_row, ids_problem
from gptdynamics.dataset.checks.parquet import Lists, checked_table
from gptdynamics.dataset.kernel_metadata import read_kernel
from gptdynamics.dataset.schema import GRADIENT_SCHEMA
from gptdynamics.errors import DataError
from gptdynamics.runs.gradient_record import product_steps
from gptdynamics.runs.run import RunKernel

# A run is collected again only if its trajectories are missing.
PRODUCTS_AGAIN = (
    "Move it and the run's trajectories out of the folder and run the same collect command again, or fetch it again"
)


@dataclass
class _Gradients:
    """A file of gradients, and its expected content.

    `constants` are columns with one value in every row; `empty` are columns that must be null; `lists` is the column of
    lists, their length (None: that of the first) and what their numbers stand for. `unseen`: whether the config has
    runs on the pool rows of `test_unseen`; `partial` is set if those rows are not in the file yet. `kernel`: how
    products were projected; None: they are exact.
    """

    table: pa.Table
    facts: ConfigFacts
    constants: dict[str, str | int]
    empty: tuple[str, ...]
    lists: tuple[str, int | None, str]
    remedy: str = AGAIN
    updates: int | None = None
    unseen: bool = False
    kernel: RunKernel | None = None
    partial: bool = False


def check_products(findings: Findings, path: Path, facts: ConfigFacts, run: str, updates: int | None) -> None:
    """Check a run's pool x test products: a row for each step and pool example, a number for each test example."""
    table = checked_table(findings, path, GRADIENT_SCHEMA, PRODUCTS_AGAIN)
    if table is not None:
        try:
            kernel = read_kernel(path)
        except DataError as error:
            findings.add(path, "", str(error).removeprefix(f"{path}: "), PRODUCTS_AGAIN)
            return
        lists = ("products", None if facts.test_ids is None else len(facts.test_ids), "test examples")
        constants: dict[str, str | int] = {"run": run, "part": "pool"}
        empty: tuple[str, ...] = ("vector", "projection_seed")
        if kernel is not None:
            constants["projection_seed"] = kernel.seed
            empty = ("vector",)
        file = _Gradients(table, facts, constants, empty, lists, PRODUCTS_AGAIN, updates, kernel=kernel)
        findings.apply((_constants, _empty, _steps_and_pool, _numbers), path, file)


def is_kernel(path: Path) -> bool:
    """Whether a file of gradient products has the metadata of a kernel, damaged or not."""
    try:
        return read_kernel(path) is not None
    except DataError:
        return True


def check_vectors(findings: Findings, path: Path, facts: ConfigFacts, unseen: bool) -> bool:
    """Check the projected gradients of a config: a row for each pool and test example.

    If runs on unseen rows (`unseen`) were planned later, the file may still have only the rows of the pool.

    Returns:
        Whether the file is complete.
    """
    table = checked_table(findings, path, GRADIENT_SCHEMA)
    if table is None:
        return True
    constants: dict[str, str | int] = {"step": 0}
    if facts.settings:
        constants["projection_seed"] = facts.settings.gradient_seed
    lists = ("vector", facts.settings.gradient_width if facts.settings else None, "coordinates")
    file = _Gradients(table, facts, constants, ("run", "products"), lists, unseen=unseen)
    findings.apply((_constants, _empty, _parts_and_ids, _numbers), path, file)
    return not file.partial


def _constants(file: _Gradients) -> Problems:
    for name, value in file.constants.items():
        if name in file.table.column_names:
            equal = pc.fill_null(pc.equal(file.table[name], value), False)
            wrong = ~equal.combine_chunks().to_numpy(zero_copy_only=False)
            if wrong.any():
                present = file.table[name][int(np.argmax(wrong))].as_py()
                yield Problem(name, f"{first_row(wrong)}: {present!r}, not {value!r}", file.remedy)


def _empty(file: _Gradients) -> Problems:
    for name in file.empty:
        if name in file.table.column_names and file.table[name].null_count < file.table.num_rows:
            yield Problem(name, "it has values, but must be null in this file", file.remedy)


def _steps_and_pool(file: _Gradients) -> Problems:
    """A row for each step and pool example, in order."""
    ids = file.facts.pool_ids
    if ids is None or file.updates is None or not {"step", "id"} <= set(file.table.column_names):
        return
    steps, pool = product_steps(file.updates), np.array(ids)
    if file.kernel is not None:
        steps = [values.step for values in file.kernel.checkpoints]
        if steps[-1] > file.updates:
            problem = f"its kernel has step {steps[-1]}, but the run has {file.updates} updates"
            yield Problem("step", problem, file.remedy)
            return
    expected = np.stack([np.repeat(steps, len(pool)), np.tile(pool, len(steps))])
    present = np.stack([file.table[name].to_numpy().astype(float) for name in ("step", "id")])
    shape = f"{len(steps)} steps ({', '.join(map(str, steps))}) x {len(pool)} pool examples"
    if present.shape != expected.shape:
        yield Problem("", f"it has {present.shape[1]} rows, not {shape}", file.remedy)
        return
    wrong = (present != expected).any(axis=0)
    if wrong.any():
        row = int(np.argmax(wrong))
        found_text, expected_text = ("step {:g}, id {:g}".format(*values[:, row]) for values in (present, expected))
        problem = f"{first_row(wrong)}: {found_text}, but with {shape} it must be {expected_text}"
        yield Problem("step, id", problem, file.remedy)


def _parts_and_ids(file: _Gradients) -> Problems:
    settings, names = file.facts.settings, ("pool", "test")
    if settings is None or file.facts.test_ids is None or not {"part", "id"} <= set(file.table.column_names):
        return
    parts, ids = file.table["part"].to_pylist(), file.table["id"].to_pylist()
    pool = range(settings.unseen_pool_ids.stop if file.unseen else settings.pool_ids.stop)
    for part, expected in zip(names, (pool, file.facts.test_ids), strict=True):
        present = [key for key, name in zip(ids, parts, strict=True) if name == part]
        if file.unseen and part == "pool" and present == list(settings.pool_ids):
            file.partial = True
        elif problem := ids_problem(present, expected):
            yield Problem(f"id of part {part}", problem)
    if parts != sorted(parts, key=lambda part: names.index(part) if part in names else 2):
        yield Problem("part", "all rows of the pool must come before those of the test set")
    unknown_parts = sum(part not in names for part in parts)
    if unknown_parts:
        yield Problem("part", f"{unknown_parts} rows belong neither to the pool nor to the test set")


def _numbers(file: _Gradients) -> Problems:
    """Lists in every row, of one length, of finite numbers."""
    name, length, unit = file.lists
    if name not in file.table.column_names or not file.table.num_rows:
        return
    lists = Lists.of(file.table, name)
    expected = int(lists.lengths[0]) if length is None else length
    if (~lists.valid).any():
        yield Problem(name, f"{first_row(~lists.valid)}: it is null", file.remedy)
    wrong = lists.valid & (lists.lengths != expected)
    if wrong.any():
        yield Problem(name, f"{first_row(wrong)}: it must have {expected} numbers ({unit})", file.remedy)
    infinite = np.flatnonzero(~np.isfinite(lists.flat))
    if len(infinite):
        row, position = lists.position(int(infinite[0]))
        suffix = f" (and {len(infinite) - 1} more)" if len(infinite) > 1 else ""
        text = f"{lists.flat[infinite[0]]:g} is not a finite number{suffix}"
        yield Problem(name, f"row {row}, place {position}: {text}", file.remedy)
