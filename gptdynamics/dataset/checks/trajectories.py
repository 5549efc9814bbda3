"""The trajectories of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.dataset.checks.facts import ConfigFacts
from gptdynamics.dataset.checks.findings import Findings, ids_problem, some
from gptdynamics.dataset.checks.parquet import Lists, readable_table, sound_columns
from gptdynamics.dataset.schema import GRADIENT_COLUMNS, trajectory_schema
from gptdynamics.metrics import LOSS, METRICS, Metric, names_of


@dataclass
class _Rows:
    """Rows of a run's file, and how to name one."""

    table: pa.Table
    ids: list[int | None]
    unique: bool

    def label(self, row: int) -> str:
        """Of a row: its test example, where that identifies it."""
        return f"test example {self.ids[row]}" if self.unique else f"row {row}"

    def many(self, wrong: np.ndarray) -> str:
        """Of the rows where `wrong` is true: the first, and how many more."""
        rows = np.flatnonzero(wrong)
        return self.label(int(rows[0])) + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")


def check_trajectories(findings: Findings, path: Path, facts: ConfigFacts, run: str, updates: int | None) -> None:
    """Check a run's trajectories: columns, test examples, steps, values.

    Args:
        findings: gathers the faults.
        path: the file.
        facts: of its config.
        run: its name.
        updates: of the run, if they are known.
    """
    table = readable_table(findings, path)
    if table is None:
        return
    table = sound_columns(findings, path, table, _schema(table, facts))
    if not table.num_rows:
        findings.add(path, "", "it has no rows")
        return
    there = set(table.column_names)
    rows = _check_names(findings, path, table, facts, run)
    recorded = facts.settings.follows_gradients(run) if facts.settings else None
    settings = facts.settings or facts.recorded
    metrics = METRICS | facts.own_metrics
    for steps, every, columns in (
        ("step", settings.eval_every if settings else None, names_of(metrics.values(), needs_text=False)),
        ("generation_step", settings.generate_every if settings else None, names_of(metrics.values(), needs_text=True)),
        ("gradient_step", 1, GRADIENT_COLUMNS),
    ):
        if steps not in there:
            continue
        gradients = steps == "gradient_step"
        if gradients and recorded is None:
            recorded = not table["gradient_step"].null_count
        if gradients and not recorded:
            _check_absent(findings, path, rows, [steps, *columns])
            continue
        none_measured = table[steps].null_count == table.num_rows
        if none_measured and steps == "generation_step" and not facts.requires.every_metric:
            _check_absent(findings, path, rows, columns)
            continue
        if facts.requires.planned_steps:
            wanted = _check_steps(findings, path, rows, steps, every, updates)
        else:
            wanted = _check_own_steps(findings, path, rows, steps, updates)
        for name in columns:
            if name in there:
                _check_values(findings, path, rows, name, wanted, _followed(rows, facts, name), metrics.get(name))


def _schema(table: pa.Table, facts: ConfigFacts) -> pa.Schema:
    """The columns that the settings call for; without settings, those that the file's own columns call for."""
    there = set(table.column_names)
    if facts.task is None or not facts.requires.every_metric:
        own = (METRICS | facts.own_metrics).values()
        metrics: tuple[Metric, ...] = tuple(metric for metric in own if metric == LOSS or metric.name in there)
        mixture = "task" in there
    else:
        metrics, mixture = facts.metrics or facts.task.followed_metrics, len(facts.task.parts) > 1
    if facts.settings is None:
        gradients = bool(there & {"gradient_step", *GRADIENT_COLUMNS})
        return trajectory_schema(metrics, mixture, gradients, wide=facts.requires.wide_metrics)
    return trajectory_schema(metrics, mixture, facts.settings.gradients != "none")


def _check_names(findings: Findings, path: Path, table: pa.Table, facts: ConfigFacts, run: str) -> _Rows:
    """Check whose rows these are: run, test examples and their tasks."""
    there = set(table.column_names)
    ids: list[int | None] = table["test_id"].to_pylist() if "test_id" in there else []
    rows = _Rows(table, ids, bool(ids) and None not in ids and len(set(ids)) == len(ids))
    if "run" in there:
        other = {str(name) for name in pc.unique(table["run"]).to_pylist()} - {run}
        if other:
            findings.add(path, "run", f"rows of run {some(sorted(other))}, where its file's name says {run}")
    if "test_id" in there:
        if facts.test_ids is not None:
            problem = ids_problem(ids, facts.test_ids)
        elif not rows.unique:
            problem = "some are null or occur more than once"
        else:
            odd = [at for at in ids if at is not None and (at < 0 or (facts.test is not None and at >= facts.test))]
            problem = f"{some(odd)}: no such test examples" if odd else ""
        if problem:
            findings.add(path, "test_id", problem)
    if "task" in there and facts.task and "test_id" in there:
        tasks = [facts.test_task(at) if at is not None else None for at in ids]
        said = table["task"].to_pylist()
        wrong = np.array([task is not None and name != task.name for task, name in zip(tasks, said, strict=True)])
        if wrong.any():
            first = int(np.argmax(wrong))
            task = tasks[first]
            should = task.name if task else None
            findings.add(path, "task", f"{rows.many(wrong)}: {said[first]!r}, where its id says {should!r}")
    return rows


def _followed(rows: _Rows, facts: ConfigFacts, metric: str) -> np.ndarray | None:
    """`[rows]` whether a metric is followed for the row's test example; None if that cannot be said."""
    if metric in GRADIENT_COLUMNS:
        return np.ones(rows.table.num_rows, dtype=bool)
    if facts.task is None or not facts.requires.every_metric:
        return None
    if len(facts.task.test_parts) == 1:
        followed = facts.metrics or facts.task.followed_metrics
        return np.full(rows.table.num_rows, metric in names_of(followed))
    if not rows.unique:
        return None
    tasks = [facts.test_task(at) if at is not None else None for at in rows.ids]
    return np.array([task is not None and metric in names_of(task.followed_metrics) for task in tasks])


def _check_absent(findings: Findings, path: Path, rows: _Rows, names: Sequence[str]) -> None:
    for name in names:
        if name in rows.table.column_names and rows.table[name].null_count < rows.table.num_rows:
            there = rows.table[name].combine_chunks().is_valid().to_numpy(zero_copy_only=False)
            findings.add(path, name, f"{rows.many(there)}: has values, but the settings record none for this run")


def _check_steps(
    findings: Findings, path: Path, rows: _Rows, name: str, every: int | None, updates: int | None
) -> np.ndarray | None:
    """Check a column of steps; the steps that it should have, if they are known."""
    lists = Lists.of(rows.table, name)
    first = 1 if name == "gradient_step" else 0
    if every is not None and updates is not None:
        wanted = np.array([at for at in range(first, updates + 1) if at % every == 0 or at == updates])
    else:
        usual = next((row for row in range(len(lists.valid)) if lists.valid[row]), None)
        if usual is None:
            findings.add(path, name, "it is null in every row")
            return None
        wanted = np.array(lists.row(usual))
        if not len(wanted) or wanted[0] != first or (np.diff(wanted) <= 0).any() or updates not in (None, wanted[-1]):
            said = _steps_problem(wanted.tolist(), None, first, updates)
            findings.add(path, name, f"{rows.label(usual)}: {said}")
            return None
    wrong = lists.differs(wanted)
    if wrong.any():
        row = int(np.argmax(wrong))
        said = _steps_problem(lists.row(row) if lists.valid[row] else None, wanted, first, updates)
        findings.add(path, name, f"{rows.many(wrong)}: {said}")
    return wanted


def _check_own_steps(findings: Findings, path: Path, rows: _Rows, name: str, updates: int | None) -> np.ndarray | None:
    """Check a column of steps that may begin and end anywhere; returns the steps that all rows have."""
    lists = Lists.of(rows.table, name)
    if not lists.valid.any():
        findings.add(path, name, "it is null in every row")
        return None
    usual = int(np.argmax(lists.valid))
    wanted = np.array(lists.row(usual))
    said = ""
    if not len(wanted) or (np.diff(wanted) <= 0).any() or wanted[0] < 0:
        said = "its steps are none, below 0, or do not increase"
    elif updates is not None and wanted[-1] > updates:
        said = f"its steps end at {wanted[-1]}, the run has {updates} updates"
    if said:
        findings.add(path, name, f"{rows.label(usual)}: {said}")
        return None
    wrong = lists.differs(wanted)
    if wrong.any():
        findings.add(path, name, f"{rows.many(wrong)}: its steps are not those of {rows.label(usual)}")
    return wanted


def _steps_problem(steps: list[int | float] | None, wanted: np.ndarray | None, first: int, updates: int | None) -> str:
    if steps is None:
        return "there are no steps"
    if not steps or steps[0] != first:
        return f"its steps begin at {steps[0] if steps else 'none'}, not {first}"
    if not (np.diff(steps) > 0).all():
        at = int(np.argmin(np.diff(steps) > 0))
        return f"its steps do not increase: {steps[at + 1]} comes after {steps[at]}"
    if updates is not None and steps[-1] != updates:
        return f"its steps end at {steps[-1]}, the run has {updates} updates"
    if wanted is not None and len(steps) != len(wanted):
        return f"it has {len(steps)} steps, the settings make {len(wanted)}"
    odd = sorted(set(steps) - set(wanted.tolist())) if wanted is not None else []
    return f"step {some(odd)} is not one that the settings measure at"


def _check_values(
    findings: Findings,
    path: Path,
    rows: _Rows,
    name: str,
    steps: np.ndarray | None,
    followed: np.ndarray | None,
    metric: Metric | None,
) -> None:
    """Check a column of values: there where they should be, one for each step, finite, in the range of the metric."""
    lists = Lists.of(rows.table, name)
    if followed is not None:
        for wrong, said in (
            (followed & ~lists.valid, "there are no values"),
            (~followed & lists.valid, "there are values, but this metric is not followed for it"),
        ):
            if wrong.any():
                findings.add(path, name, f"{rows.many(wrong)}: {said}")
    wrong = lists.valid & (lists.lengths != (lists.lengths if steps is None else len(steps)))
    if steps is not None and wrong.any():
        said = f"it has {lists.lengths[wrong][0]} values for {len(steps)} steps"
        findings.add(path, name, f"{rows.many(wrong)}: {said}")
    finite = np.isfinite(lists.flat)
    outside = metric.outside(lists.flat) if metric else np.zeros_like(finite)
    allowed = metric.allowed if metric else ""
    for bad, said in ((~finite, "not a finite number"), (outside, f"not {allowed}")):
        if bad.any():
            places = np.flatnonzero(bad)
            row, place = lists.place(int(places[0]))
            at = f"step {steps[place]}" if steps is not None and place < len(steps) else f"value {place}"
            more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
            findings.add(path, name, f"{rows.label(row)}, {at}: {lists.flat[places[0]]:g} is {said}{more}")
