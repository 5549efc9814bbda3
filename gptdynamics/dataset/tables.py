"""The results of a run as tables of a dataset repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa

from gptdynamics.configs import RunSettings, run_parts
from gptdynamics.curriculum import left_out
from gptdynamics.dataset.kernel_metadata import kernel_metadata
from gptdynamics.dataset.schema import GRADIENT_SCHEMA, RUN_SCHEMA, trajectory_schema
from gptdynamics.examples import Example
from gptdynamics.runs import Run
from gptdynamics.tasks import Mixture, Task, get_task

_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy", "sacrebleu", "rouge-score")


def library_versions(more_libraries: Sequence[str] = ()) -> str:
    """Versions of the libraries that affect the results of a run, as JSON; those of `more_libraries`, if installed."""
    versions = {name: version(name) for name in _LIBRARIES}
    for name in more_libraries:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return json.dumps(versions, sort_keys=True)


def run_row(settings: RunSettings, base: tuple[str, str], run: Run) -> pa.Table:
    """The row that describes a run: curriculum, rates, base model (name and revision), all settings, versions."""
    values, parts = settings.for_run(run.name).to_dict(), run_parts(run.name)
    row = {name: values[name] for name in RUN_SCHEMA.names if name in values} | {
        "run": run.name,
        "index": parts.index,
        "task": settings.task,
        "scenario": get_task(settings.task).scenario,
        "base_model": base[0],
        "base_revision": base[1],
        "curriculum": run.curriculum,
        "learning_rate": run.learning_rate,
        "peak_learning_rate": settings.learning_rate,
        "optimizer": "adamw",
        "schedule": "linear",
        "versions": library_versions(),
        "repeats": parts.base,
        "left_out": left_out(settings, run.name) if parts.base else None,
    }
    return pa.Table.from_pylist([row], schema=RUN_SCHEMA)


def _lists(values: np.ndarray) -> list[np.ndarray | None]:
    """A list for each row of `[examples, steps]`; null where nothing was measured."""
    return [None if np.isnan(row).any() else row for row in values]


def trajectory_table(task: Task | Mixture, test: Sequence[Example], run: Run, gradients: bool = False) -> pa.Table:
    """A row for each test example of a run, in their order; `gradients`: whether the config records products."""
    rows = len(test)
    schema = trajectory_schema(task.followed_metrics, len(task.parts) > 1, gradients)
    columns: dict[str, Any] = {
        "run": [run.name] * rows,
        "test_id": [example.id for example in test],
        "task": [example.task for example in test],
        "step": [run.step] * rows,
        "generation_step": [run.generation_step] * rows,
        "gradient_step": [list(range(1, len(run.curriculum) + 1)) if run.gradients else None] * rows,
    }
    columns |= {name: _lists(values) for name, values in (run.metrics | run.gradients).items()}
    return pa.table({name: columns.get(name, [None] * rows) for name in schema.names}, schema=schema)


def product_table(pool_ids: Sequence[int], run: Run) -> pa.Table:
    """A row for each (step, pool example) of a run: inner products of its gradient with all test gradients."""
    constants = {"run": run.name, "part": "pool", "projection_seed": None if run.kernel is None else run.kernel.seed}
    rows = [
        constants | {"step": step, "id": pool_id, "products": products[index]}
        for step, products in run.products.items()
        for index, pool_id in enumerate(pool_ids)
    ]
    table = pa.Table.from_pylist(rows, schema=GRADIENT_SCHEMA)
    return table if run.kernel is None else table.replace_schema_metadata(kernel_metadata(run.kernel))


def vector_table(
    settings: RunSettings, pool: tuple[Sequence[int], np.ndarray], test: tuple[Sequence[int], np.ndarray]
) -> pa.Table:
    """A row for each pool and test example: id and projected gradient of the base model.

    `pool` and `test` are ids and vectors `[examples, width]`.
    """
    rows = [
        {"step": 0, "part": part, "id": example, "vector": vector, "projection_seed": settings.gradient_seed}
        for part, (ids, vectors) in (("pool", pool), ("test", test))
        for example, vector in zip(ids, vectors, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=GRADIENT_SCHEMA)
