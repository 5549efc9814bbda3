"""Gradient products of a run, and projected gradients of a config's base model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.configs import RunSettings
from gptdynamics.dataset.checks.facts import ConfigFacts
from gptdynamics.dataset.checks.findings import AGAIN, Findings, ids_problem
from gptdynamics.dataset.checks.parquet import Lists, checked_table
from gptdynamics.dataset.schema import GRADIENT_SCHEMA
from gptdynamics.runs.gradient_record import product_steps

# A run that has its trajectories is not made again.
PRODUCTS_AGAIN = (
    "Move it and the run's trajectories out of the folder and run the same collect command again, or fetch it again"
)


def check_products(findings: Findings, path: Path, facts: ConfigFacts, run: str, updates: int | None) -> None:
    """Check a run's pool x test gradient products: a row for each step and pool example, a number for each test one."""
    table = checked_table(findings, path, GRADIENT_SCHEMA, PRODUCTS_AGAIN)
    if table is None:
        return
    _check_columns(findings, path, table, {"run": run, "part": "pool"}, ("vector", "projection_seed"), PRODUCTS_AGAIN)
    if facts.settings and updates is not None:
        _check_places(findings, path, table, product_steps(updates), facts.settings)
    columns = None if facts.test_ids is None else len(facts.test_ids)
    _check_lists(findings, path, table, "products", columns, "test examples", PRODUCTS_AGAIN)


def check_vectors(findings: Findings, path: Path, facts: ConfigFacts, unseen: bool) -> bool:
    """Check the projected gradients of a config: a row for each pool and test example.

    Where runs on unseen rows were planned later, those of the first pool may be all there is yet.

    Args:
        findings: gathers the faults.
        path: the file.
        facts: of the config.
        unseen: whether some of its runs train on the pool rows of `test_unseen`.

    Returns:
        Whether collecting would add none.
    """
    table = checked_table(findings, path, GRADIENT_SCHEMA)
    if table is None:
        return True
    settings, whole = facts.settings, True
    wanted: dict[str, str | int] = {"step": 0}
    if settings:
        wanted["projection_seed"] = settings.gradient_seed
    _check_columns(findings, path, table, wanted, ("run", "products"), AGAIN)
    if settings and facts.test_ids is not None and {"part", "id"} <= set(table.column_names):
        parts, ids = table["part"].to_pylist(), table["id"].to_pylist()
        pool = range(settings.unseen_pool_ids.stop if unseen else settings.pool_ids.stop)
        for part, of_part in (("pool", pool), ("test", facts.test_ids)):
            there = [at for at, name in zip(ids, parts, strict=True) if name == part]
            if unseen and part == "pool" and there == list(settings.pool_ids):
                whole = False
                continue
            problem = ids_problem(there, of_part)
            if problem:
                findings.add(path, f"id of part {part}", problem)
        if parts != sorted(parts, key=lambda part: ("pool", "test").index(part) if part in ("pool", "test") else 2):
            findings.add(path, "part", "the pool's rows do not all come before the test set's")
        odd = sum(part not in ("pool", "test") for part in parts)
        if odd:
            findings.add(path, "part", f"{odd} rows are neither of the pool nor of the test set")
    _check_lists(findings, path, table, "vector", settings.gradient_width if settings else None, "coordinates", AGAIN)
    return whole


def _check_columns(
    findings: Findings,
    path: Path,
    table: pa.Table,
    wanted: dict[str, str | int],
    empty: tuple[str, ...],
    remedy: str,
) -> None:
    """Check columns with one value all over, and columns that are null."""
    for name, value in wanted.items():
        if name in table.column_names:
            same = pc.fill_null(pc.equal(table[name], value), False)
            wrong = ~same.combine_chunks().to_numpy(zero_copy_only=False)
            if wrong.any():
                at = int(np.argmax(wrong))
                more = f" and {wrong.sum() - 1} rows more" if wrong.sum() > 1 else ""
                findings.add(path, name, f"row {at}{more}: {table[name][at].as_py()!r}, not {value!r}", remedy)
    for name in empty:
        if name in table.column_names and table[name].null_count < table.num_rows:
            findings.add(path, name, "it has values; in this file it is null", remedy)


def _check_places(findings: Findings, path: Path, table: pa.Table, steps: list[int], settings: RunSettings) -> None:
    """Check that there is a row for each step and pool example, in order."""
    if not {"step", "id"} <= set(table.column_names):
        return
    pool = np.array(settings.pool_ids)
    wanted = np.stack([np.repeat(steps, len(pool)), np.tile(pool, len(steps))])
    found = np.stack([table[name].to_numpy().astype(float) for name in ("step", "id")])
    shape = f"{len(steps)} steps ({', '.join(map(str, steps))}) x {len(pool)} pool examples"
    if found.shape != wanted.shape:
        findings.add(path, "", f"it has {found.shape[1]} rows, not {shape}", PRODUCTS_AGAIN)
        return
    wrong = (found != wanted).any(axis=0)
    if wrong.any():
        at = int(np.argmax(wrong))
        there, here = ("step {:g}, id {:g}".format(*each[:, at]) for each in (found, wanted))
        more = f" and {wrong.sum() - 1} rows more" if wrong.sum() > 1 else ""
        findings.add(path, "step, id", f"row {at}{more}: {there}, where {shape} have {here}", PRODUCTS_AGAIN)


def _check_lists(
    findings: Findings, path: Path, table: pa.Table, name: str, length: int | None, of_what: str, remedy: str
) -> None:
    """Check a column of lists that are all there, of one length, and finite."""
    if name not in table.column_names or not table.num_rows:
        return
    lists = Lists.of(table, name)
    wanted = int(lists.lengths[0]) if length is None else length
    finite = np.isfinite(lists.flat)
    for wrong, said in (
        (~lists.valid, "it is null"),
        (lists.valid & (lists.lengths != wanted), f"its numbers are not as many as the {wanted} {of_what}"),
    ):
        if wrong.any():
            more = f" and {wrong.sum() - 1} rows more" if wrong.sum() > 1 else ""
            findings.add(path, name, f"row {int(np.argmax(wrong))}{more}: {said}", remedy)
    if not finite.all():
        index = int(np.argmin(finite))
        row, place = lists.place(index)
        more = f" (and {(~finite).sum() - 1} more)" if (~finite).sum() > 1 else ""
        said = f"{lists.flat[index]:g} is not a finite number{more}"
        findings.add(path, name, f"row {row}, place {place}: {said}", remedy)
