"""Rules for the row that describes a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptdynamics.configs import RunSettings, run_parts
from gptdynamics.curriculum import draw_curriculum, left_out, linear_decay
from gptdynamics.dataset.checks.facts import ConfigFacts
from gptdynamics.dataset.checks.findings import Findings, Problem, Problems, some
from gptdynamics.dataset.checks.parquet import Lists, readable_table, sound_columns
from gptdynamics.dataset.schema import COUNTERFACTUAL_COLUMNS, RUN_SCHEMA

# Rates are stored as float32.
_RATE_ERROR = 1e-6


@dataclass
class _RunRow:
    """The row of a run, and its number of updates, if known."""

    table: pa.Table
    facts: ConfigFacts
    run: str
    updates: int | None

    def __post_init__(self) -> None:
        simple = [name for name in self.table.column_names if not pa.types.is_list(self.table[name].type)]
        self.values: dict[str, Any] = self.table.select(simple).to_pylist()[0]
        self.expected = _expected_values(self.facts, self.run)


def check_run_row(findings: Findings, path: Path, facts: ConfigFacts, run: str) -> int | None:
    """Check the row of a run: names, settings, curriculum, rates. Returns its number of updates, if known."""
    updates = None if facts.settings is None else facts.settings.run_steps
    table = readable_table(findings, path)
    schema = facts.run_schema(() if table is None else table.column_names)
    if table is not None:
        if not set(COUNTERFACTUAL_COLUMNS) & set(table.column_names) and run_parts(run).base is None:
            # Rows of earlier releases lack these columns.
            schema = pa.schema([field for field in schema if field.name not in COUNTERFACTUAL_COLUMNS])
        table = sound_columns(findings, path, table, schema)
    if table is None:
        return updates
    if table.num_rows != 1:
        findings.add(path, "", f"it has {table.num_rows} rows; a run has one")
        return updates
    row = _RunRow(table, facts, run, updates)
    findings.apply(RULES, path, row)
    return row.updates


def _expected_values(facts: ConfigFacts, run: str) -> dict[str, Any]:
    """The expected values of a run's row, by column."""
    parts = run_parts(run)
    expected: dict[str, Any] = {"run": run, "index": parts.index, "config": facts.config, "repeats": parts.base}
    if facts.task:
        expected |= {"task": facts.task.name, "scenario": facts.task.scenario}
    if facts.base_revision:
        expected["base_revision"] = facts.base_revision
    if facts.recorded:
        values = facts.recorded.to_dict()
        # A recorded training has its own seed.
        expected |= {name: values[name] for name in facts.run_schema().names if name in values.keys() - {"seed"}}
    if facts.settings:
        values = facts.settings.for_run(run).to_dict()
        excluded = {"learning_rate", "base_model"}
        expected |= {name: values[name] for name in RUN_SCHEMA.names if name in values.keys() - excluded}
        expected |= {
            "peak_learning_rate": facts.settings.learning_rate,
            "optimizer": "adamw",
            "schedule": "linear",
        }
    return expected


def _values_match_manifest(row: _RunRow) -> Problems:
    for name, expected in row.expected.items():
        if name in row.values and row.values[name] != expected:
            named = name in ("run", "index", "repeats")
            source = "its file's name says" if named else f"the manifest of {row.facts.config} says"
            yield Problem(name, f"{row.values[name]!r}, but {source} {expected!r}")


def _base_model_is_named(row: _RunRow) -> Problems:
    for name in ("base_model", "base_revision"):
        if name in row.values and not row.values[name] and name not in row.expected:
            yield Problem(name, "it is empty")


def _objects_are_json(row: _RunRow) -> Problems:
    for name in ("versions", "hyperparameters"):
        if name in row.values and not _is_object(row.values[name]):
            yield Problem(name, "not a JSON object")


def _is_object(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), dict)
    except (ValueError, RecursionError):
        return False


def _curriculum(row: _RunRow) -> Problems:
    """Yields only the most important fault of the batches. Sets the number of updates if there are no settings."""
    if "curriculum" not in row.table.column_names:
        return
    facts = row.facts
    batches = row.table["curriculum"].combine_chunks().flatten()
    if row.table["curriculum"].null_count or batches.null_count or batches.flatten().null_count or not len(batches):
        yield Problem("curriculum", "batches or ids are null" if len(batches) else "there is none")
        return
    sizes = batches.value_lengths().to_numpy(zero_copy_only=False)
    ids = batches.flatten().to_numpy(zero_copy_only=False)
    if facts.settings is None:
        row.updates = len(sizes)
        if not len(ids) or (ids < 0).any():
            yield Problem("curriculum", "it has ids below 0" if len(ids) else "all its batches are empty")
        elif facts.pool is not None and ids.max() >= facts.pool:
            yield Problem("curriculum", f"id {ids.max()} is not one of the {facts.pool} examples of the pool")
    elif problem := _curriculum_problem(sizes, ids, facts.settings, row.run):
        yield Problem("curriculum", problem)


def _curriculum_problem(sizes: np.ndarray, ids: np.ndarray, settings: RunSettings, run: str) -> str:
    if len(sizes) != settings.run_steps:
        return f"it has {len(sizes)} batches, but the settings give {settings.run_steps}"
    parts = run_parts(run)
    if parts.base is not None:
        batches = [batch.tolist() for batch in np.split(ids, np.cumsum(sizes)[:-1])]
        pairs = enumerate(zip(batches, draw_curriculum(settings, run), strict=True))
        wrong = next((index for index, (batch, drawn) in pairs if batch != drawn), None)
        return "" if wrong is None else f"batch {wrong} is not that of run {parts.base} without the rows left out"
    if (sizes != settings.batch_size).any():
        batch = int(np.argmax(sizes != settings.batch_size))
        return f"batch {batch} has {sizes[batch]} ids, batch_size is {settings.batch_size}"
    unseen = parts.unseen
    pool = settings.unseen_pool_ids if unseen else settings.pool_ids
    outside = (ids < pool.start) | (ids >= pool.stop)
    if outside.any():
        kind = "pool rows kept for unseen runs" if unseen else "pool"
        batch = int(np.argmax(outside)) // settings.batch_size
        return f"batch {batch} has id {ids[outside][0]}, the {kind} are {pool.start} to {pool.stop - 1}"
    epoch_ids = settings.examples // settings.batch_size * settings.batch_size
    for epoch, start in enumerate(range(0, len(ids), epoch_ids)):
        unique, counts = np.unique(ids[start : start + epoch_ids], return_counts=True)
        if (counts > 1).any():
            return f"{some(unique[counts > 1])} occur more than once in epoch {epoch}"
    drawn = np.array(draw_curriculum(settings, run))
    differs = (ids.reshape(drawn.shape) != drawn).any(axis=1)
    if differs.any():
        return f"batch {int(np.argmax(differs))} is not the one that seed {settings.seed} draws for run {run}"
    return ""


def _left_out(row: _RunRow) -> Problems:
    if "left_out" not in row.table.column_names:
        return
    [rows] = row.table["left_out"].to_pylist()
    if run_parts(row.run).base is None:
        if rows is not None:
            yield Problem("left_out", "it has rows, but the run does not repeat another one")
    elif row.facts.settings is not None and rows != left_out(row.facts.settings, row.run):
        yield Problem("left_out", f"not the rows that seed {row.facts.settings.seed} leaves out in run {row.run}")


def _rates(row: _RunRow) -> Problems:
    if "learning_rate" not in row.table.column_names:
        return
    settings, lists = row.facts.settings, Lists.of(row.table, "learning_rate")
    rates = lists.flat
    if not lists.valid.all() or np.isnan(rates).any():
        yield Problem("learning_rate", "rates are null or not numbers")
    elif row.updates is not None and len(rates) != row.updates:
        yield Problem("learning_rate", f"it has {len(rates)} rates for {row.updates} updates")
    elif settings is None:
        if not np.isfinite(rates).all() or (rates < 0).any():
            yield Problem("learning_rate", "rates are below 0 or not finite")
    else:
        expected = np.array(linear_decay(settings.learning_rate, settings.run_steps), dtype=np.float32)
        wrong = ~np.isclose(rates, expected, rtol=_RATE_ERROR, atol=0)
        if wrong.any():
            update = int(np.argmax(wrong))
            rate_text = f"the rate of update {update + 1} is {rates[update]:.6g}"
            yield Problem("learning_rate", f"{rate_text}, but linear decay gives {expected[update]:.6g}")


RULES = (_values_match_manifest, _base_model_is_named, _objects_are_json, _curriculum, _left_out, _rates)
