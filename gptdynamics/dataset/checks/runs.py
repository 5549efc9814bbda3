"""The row that describes a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptdynamics.configs import RunSettings, run_parts
from gptdynamics.curriculum import draw_curriculum, linear_decay
from gptdynamics.dataset.checks.facts import ConfigFacts
from gptdynamics.dataset.checks.findings import Findings, some
from gptdynamics.dataset.checks.parquet import Lists, checked_table
from gptdynamics.dataset.schema import RUN_SCHEMA

# Wherever a run was recorded, its rates are stored as float32.
_RATE_ERROR = 1e-6


def check_run_row(findings: Findings, path: Path, facts: ConfigFacts, run: str) -> int | None:
    """Check the row of a run: names, settings, curriculum, rates. Returns its updates, if they are known."""
    table = checked_table(findings, path, facts.run_schema)
    if table is None:
        return None if facts.settings is None else facts.settings.run_steps
    if table.num_rows != 1:
        findings.add(path, "", f"it has {table.num_rows} rows; a run has one")
        return None if facts.settings is None else facts.settings.run_steps
    simple = [name for name in table.column_names if not pa.types.is_list(table[name].type)]
    row = table.select(simple).to_pylist()[0]
    for name, wanted in _wanted(facts, run).items():
        if name in row and row[name] != wanted:
            source = f"the manifest of {facts.config} says" if name not in ("run", "index") else "its file's name says"
            findings.add(path, name, f"{row[name]!r}, where {source} {wanted!r}")
    for name in ("base_model", "base_revision"):
        if name in row and not row[name] and name not in _wanted(facts, run):
            findings.add(path, name, "it is empty")
    for name in ("versions", "hyperparameters"):
        if name in row and not _is_object(row[name]):
            findings.add(path, name, "not a JSON object")
    steps = _check_curriculum(findings, path, table, facts, run) if "curriculum" in table.column_names else None
    if facts.settings:
        steps = facts.settings.run_steps
    if "learning_rate" in table.column_names:
        _check_rates(findings, path, Lists.of(table, "learning_rate"), facts.settings, steps)
    return steps


def _wanted(facts: ConfigFacts, run: str) -> dict[str, Any]:
    """What a run's row must say, by column."""
    wanted: dict[str, Any] = {"run": run, "index": run_parts(run)[0], "config": facts.config}
    if facts.task:
        wanted |= {"task": facts.task.name, "scenario": facts.task.scenario}
    if facts.base_revision:
        wanted["base_revision"] = facts.base_revision
    if facts.recorded:
        values = facts.recorded.to_dict()
        # The seed of the training is its own.
        wanted |= {name: values[name] for name in facts.run_schema.names if name in values.keys() - {"seed"}}
    if facts.settings:
        values = facts.settings.to_dict()
        named_otherwise = {"learning_rate", "base_model"}
        wanted |= {name: values[name] for name in RUN_SCHEMA.names if name in values.keys() - named_otherwise}
        wanted |= {
            "peak_learning_rate": facts.settings.learning_rate,
            "optimizer": "adamw",
            "schedule": "linear",
        }
    return wanted


def _is_object(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), dict)
    except (ValueError, RecursionError):
        return False


def _check_curriculum(findings: Findings, path: Path, table: pa.Table, facts: ConfigFacts, run: str) -> int | None:
    """Check the batches, the most telling fault only; the number of updates they make."""
    batches = table["curriculum"].combine_chunks().flatten()
    if table["curriculum"].null_count or batches.null_count or batches.flatten().null_count or not len(batches):
        findings.add(path, "curriculum", "batches or ids are null" if len(batches) else "there is none")
        return None
    sizes = batches.value_lengths().to_numpy(zero_copy_only=False)
    ids = batches.flatten().to_numpy(zero_copy_only=False)
    if facts.settings is None:
        if (ids < 0).any() or not sizes.all():
            findings.add(path, "curriculum", "it has empty batches or ids below 0")
        elif facts.pool is not None and ids.max() >= facts.pool:
            findings.add(path, "curriculum", f"id {ids.max()} is not one of the {facts.pool} examples of the pool")
        return len(sizes)
    problem = _curriculum_problem(sizes, ids, facts.settings, run)
    if problem:
        findings.add(path, "curriculum", problem)
    return len(sizes)


def _curriculum_problem(sizes: np.ndarray, ids: np.ndarray, settings: RunSettings, run: str) -> str:
    if len(sizes) != settings.run_steps:
        return f"it has {len(sizes)} batches, the settings make {settings.run_steps}"
    if (sizes != settings.batch_size).any():
        at = int(np.argmax(sizes != settings.batch_size))
        return f"batch {at} has {sizes[at]} ids, batch_size is {settings.batch_size}"
    unseen = run_parts(run)[1]
    pool = settings.unseen_pool_ids if unseen else settings.pool_ids
    outside = (ids < pool.start) | (ids >= pool.stop)
    if outside.any():
        kind = "pool rows kept for unseen runs" if unseen else "pool"
        at = int(np.argmax(outside)) // settings.batch_size
        return f"batch {at} has id {ids[outside][0]}, the {kind} are {pool.start} to {pool.stop - 1}"
    a_pass = settings.examples // settings.batch_size * settings.batch_size
    for epoch, start in enumerate(range(0, len(ids), a_pass)):
        found, counts = np.unique(ids[start : start + a_pass], return_counts=True)
        if (counts > 1).any():
            return f"{some(found[counts > 1])} occur more than once in epoch {epoch}"
    drawn = np.array(draw_curriculum(settings, run))
    differs = (ids.reshape(drawn.shape) != drawn).any(axis=1)
    if differs.any():
        return f"batch {int(np.argmax(differs))} is not the one that seed {settings.seed} draws for run {run}"
    return ""


def _check_rates(findings: Findings, path: Path, rates: Lists, settings: RunSettings | None, steps: int | None) -> None:
    if not rates.valid.all() or np.isnan(rates.flat).any():
        findings.add(path, "learning_rate", "rates are null or not numbers")
    elif steps is not None and len(rates.flat) != steps:
        findings.add(path, "learning_rate", f"it has {len(rates.flat)} rates for {steps} updates")
    elif settings is None:
        if not np.isfinite(rates.flat).all() or (rates.flat < 0).any():
            findings.add(path, "learning_rate", "rates are below 0 or not finite")
    else:
        wanted = np.array(linear_decay(settings.learning_rate, settings.run_steps), dtype=np.float32)
        wrong = ~np.isclose(rates.flat, wanted, rtol=_RATE_ERROR, atol=0)
        if wrong.any():
            at = int(np.argmax(wrong))
            said = f"the rate of update {at + 1} is {rates.flat[at]:.6g}"
            findings.add(path, "learning_rate", f"{said}, linear decay makes it {wanted[at]:.6g}")
