"""Gradient vectors and products of a config as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.kernel_metadata import read_kernel
from gptdynamics.dataset.reading import local_root
from gptdynamics.dataset.run_files import read_trajectories
from gptdynamics.dataset.schema import COLLECT_AGAIN, GRADIENT_COLUMNS, GRADIENT_SCHEMA, read_parquet, with_types
from gptdynamics.errors import DataError
from gptdynamics.runs.run import RunKernel


@dataclass(frozen=True)
class GradientVectors:
    """Projected gradients of the base model's loss.

    Attributes:
        pool, test: vector `[width]` of each example, by id.
        width, seed: of the projection.
    """

    pool: dict[int, np.ndarray]
    test: dict[int, np.ndarray]
    width: int
    seed: int


@dataclass(frozen=True)
class GradientProducts:
    """Inner products of the gradients of pool and test examples in one run.

    Attributes:
        step: `[S]` steps at which they were computed.
        pool_ids: the N pool examples.
        test_ids: the M test examples.
        values: `[S, N, M]` float32.
        kernel: how they were projected; None: they are exact.
    """

    step: np.ndarray
    pool_ids: list[int]
    test_ids: list[int]
    values: np.ndarray
    kernel: RunKernel | None = None


def _read(path: Path, columns: list[str]) -> pa.Table:
    types = {name: GRADIENT_SCHEMA.field(name).type for name in columns}
    return with_types(read_parquet(path, columns), types, path)


def _matrix(lists: pa.ChunkedArray) -> np.ndarray | None:
    """Lists of numbers as `[rows, numbers]`; None if they differ in length or are not finite."""
    rows = lists.combine_chunks()
    if not len(rows) or rows.null_count or len(pc.unique(pc.list_value_length(rows))) > 1:
        return None
    flat = rows.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(rows), -1) if flat.size and np.isfinite(flat).all() else None


def read_vectors(source: str | Path, config: str) -> GradientVectors | None:
    """The gradient vectors of a config's base model from a dataset folder or Hub id; None if it has none.

    Raises DataError if they are damaged.
    """
    path = DatasetFolder(local_root(str(source))).vectors_path(config)
    if not path.exists():
        return None
    table = _read(path, ["part", "id", "vector", "projection_seed"])
    parts, ids = table["part"].to_pylist(), table["id"].to_pylist()
    vectors = _matrix(table["vector"])
    seeds = set(table["projection_seed"].to_pylist())
    complete = set(parts) == {"pool", "test"} and None not in ids and len(set(zip(parts, ids, strict=True))) == len(ids)
    if vectors is None or not complete or len(seeds) > 1 or None in seeds:
        raise DataError(f"{path}: its vectors are damaged. {COLLECT_AGAIN}")
    by_part: dict[str, dict[int, np.ndarray]] = {"pool": {}, "test": {}}
    for part, example, vector in zip(parts, ids, vectors, strict=True):
        by_part[part][example] = vector
    return GradientVectors(by_part["pool"], by_part["test"], vectors.shape[1], table["projection_seed"][0].as_py())


def read_products(source: str | Path, config: str, run: str) -> GradientProducts:
    """The gradient products of a run from a dataset folder or Hub id; DataError if they are missing or damaged."""
    folder = DatasetFolder(local_root(str(source)))
    path = folder.products_path(config, run)
    if not path.exists():
        raise DataError(
            f"{source}: run {run} of {config} has no gradient products; collect with --gradients test or --kernels"
        )
    table = _read(path, ["run", "step", "id", "products"])
    if set(table["run"].to_pylist()) - {run}:
        raise DataError(
            f"{path}: it belongs to another run than {run}. Move it and the run's file away, and collect that run"
        )
    flat = _matrix(table["products"])
    complete = flat is not None and not table["step"].null_count and not table["id"].null_count
    steps, ids = np.unique(table["step"].to_numpy()), table["id"].to_numpy()
    complete = complete and ids.size % len(steps) == 0
    ids, step_grid = (
        column.reshape(len(steps), -1) if complete else column for column in (ids, table["step"].to_numpy())
    )
    if flat is None or not complete or (ids != ids[0]).any() or (step_grid != steps[:, None]).any():
        raise DataError(
            f"{path}: its products are damaged. Move it and the run's file away, and collect that run again"
        )
    products = flat.reshape(*ids.shape, -1)
    test_ids = read_trajectories(folder.run_path(config, run), run, [])["test_id"].to_pylist()
    if len(test_ids) != products.shape[2]:
        raise DataError(
            f"{path}: products with {products.shape[2]} test examples, but the run has {len(test_ids)}. "
            "Move it and the run's file away, and collect that run again"
        )
    return GradientProducts(steps, ids[0].tolist(), test_ids, products, read_kernel(path))


@dataclass(frozen=True)
class UpdateProducts:
    """Inner products of a run's updates with the gradients of its test examples.

    Attributes:
        test_ids: the M test examples.
        values: `grad_dot` and `update_dot`, `[M, T]` float32 each, a column for each update.
    """

    test_ids: list[int]
    values: dict[str, np.ndarray]


def has_products(source: str | Path, config: str, run: str) -> bool:
    """Whether a run recorded pool x test gradient products."""
    return DatasetFolder(local_root(str(source))).products_path(config, run).exists()


def read_update_products(source: str | Path, config: str, run: str) -> UpdateProducts | None:
    """The columns `grad_dot` and `update_dot` of a run, if it recorded them; raises DataError if they are damaged."""
    path = DatasetFolder(local_root(str(source))).run_path(config, run)
    table = read_trajectories(path, run)
    if not set(GRADIENT_COLUMNS) <= set(table.column_names) or table["grad_dot"].null_count == table.num_rows:
        return None
    values = {}
    for column in GRADIENT_COLUMNS:
        products = _matrix(table[column])
        if products is None:
            raise DataError(f"{path}: its {column} is damaged. {COLLECT_AGAIN}")
        values[column] = products
    return UpdateProducts(table["test_id"].to_pylist(), values)
