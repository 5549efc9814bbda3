"""Rules for the trajectories of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.dataset.checks.facts import ConfigFacts
from gptdynamics.dataset.checks.findings import Findings, Problem, Problems, ids_problem, some
from gptdynamics.dataset.checks.parquet import Lists, readable_table, sound_columns
from gptdynamics.dataset.schema import GRADIENT_COLUMNS, trajectory_schema
from gptdynamics.metrics import LOSS, METRICS, Metric, names_of


@dataclass
class _Trajectories:
    """The rows of a run's file; `updates` is the run's number of updates, if known."""

    table: pa.Table
    facts: ConfigFacts
    run: str
    updates: int | None

    def __post_init__(self) -> None:
        self.columns = set(self.table.column_names)
        self.ids: list[int | None] = self.table["test_id"].to_pylist() if "test_id" in self.columns else []
        self.unique = bool(self.ids) and None not in self.ids and len(set(self.ids)) == len(self.ids)
        self.metrics = METRICS | self.facts.own_metrics

    def label(self, row: int) -> str:
        """A row's name in messages: its test example, if that identifies it."""
        return f"test example {self.ids[row]}" if self.unique else f"row {row}"

    def first(self, wrong: np.ndarray) -> str:
        """The first row where `wrong` is true, and how many more there are."""
        rows = np.flatnonzero(wrong)
        return self.label(int(rows[0])) + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")


def check_trajectories(findings: Findings, path: Path, facts: ConfigFacts, run: str, updates: int | None) -> None:
    """Check a run's trajectories: columns, test examples, steps, values; `updates`: its number of updates, if known."""
    table = readable_table(findings, path)
    if table is None:
        return
    table = sound_columns(findings, path, table, _schema(table, facts))
    if not table.num_rows:
        findings.add(path, "", "it has no rows")
        return
    findings.apply(RULES, path, _Trajectories(table, facts, run, updates))


def _schema(table: pa.Table, facts: ConfigFacts) -> pa.Schema:
    """The columns that follow from the settings; without settings, from the columns of the file."""
    names = set(table.column_names)
    if facts.task is None or facts.imported:
        possible = (METRICS | facts.own_metrics).values()
        metrics: tuple[Metric, ...] = tuple(metric for metric in possible if metric == LOSS or metric.name in names)
        mixture = "task" in names
    else:
        metrics, mixture = facts.metrics or facts.task.followed_metrics, len(facts.task.parts) > 1
    if facts.settings is None:
        gradients = bool(names & {"gradient_step", *GRADIENT_COLUMNS})
        return trajectory_schema(metrics, mixture, gradients, wide=facts.imported)
    return trajectory_schema(metrics, mixture, facts.settings.gradients != "none")


def _rows_of_the_run(rows: _Trajectories) -> Problems:
    if "run" in rows.columns:
        other_runs = {str(name) for name in pc.unique(rows.table["run"]).to_pylist()} - {rows.run}
        if other_runs:
            yield Problem("run", f"rows of run {some(sorted(other_runs))}, but its file's name says {rows.run}")


def _test_examples(rows: _Trajectories) -> Problems:
    facts, problem = rows.facts, ""
    if "test_id" not in rows.columns:
        return
    if facts.test_ids is not None:
        problem = ids_problem(rows.ids, facts.test_ids)
    elif not rows.unique:
        problem = "some are null or occur more than once"
    else:
        last = None if facts.test is None else facts.test - 1
        unknown = [key for key in rows.ids if key is not None and (key < 0 or (last is not None and key > last))]
        problem = f"{some(unknown)}: no such test examples" if unknown else ""
    if problem:
        yield Problem("test_id", problem)


def _tasks_of_the_test_examples(rows: _Trajectories) -> Problems:
    if not {"task", "test_id"} <= rows.columns or rows.facts.task is None:
        return
    tasks, names = [rows.facts.test_task(key) for key in rows.ids], rows.table["task"].to_pylist()
    wrong = np.array([task is not None and name != task.name for task, name in zip(tasks, names, strict=True)])
    if wrong.any():
        row = int(np.argmax(wrong))
        task = tasks[row]
        yield Problem("task", f"{rows.first(wrong)}: {names[row]!r}, but its id says {task.name if task else None!r}")


def _steps_and_values(rows: _Trajectories) -> Problems:
    """The problems of each group of columns and its steps."""
    facts = rows.facts
    shared = facts.settings.for_run(rows.run) if facts.settings else facts.recorded
    intervals = (shared.eval_every, shared.generate_every, 1) if shared else (None, None, 1)
    losses, texts = (names_of(rows.metrics.values(), needs_text=needs) for needs in (False, True))
    groups = {"step": losses, "generation_step": texts, "gradient_step": GRADIENT_COLUMNS}
    for (steps, columns), interval in zip(groups.items(), intervals, strict=True):
        if steps not in rows.columns:
            continue
        unmeasured = rows.table[steps].null_count == rows.table.num_rows
        if steps == "gradient_step":
            unmeasured = not facts.settings.follows_gradients(rows.run) if facts.settings else unmeasured
        elif steps == "step" or not facts.imported:
            unmeasured = False
        if unmeasured:
            yield from _no_values(rows, [*([steps] if steps == "gradient_step" else []), *columns])
            continue
        problem, expected = _imported_steps(rows, steps) if facts.imported else _planned_steps(rows, steps, interval)
        if problem:
            yield Problem(steps, problem)
        for name in columns:
            if name in rows.columns:
                yield from _values(rows, name, expected)


RULES = (_rows_of_the_run, _test_examples, _tasks_of_the_test_examples, _steps_and_values)


def _no_values(rows: _Trajectories, names: Sequence[str]) -> Problems:
    for name in names:
        if name in rows.columns and rows.table[name].null_count < rows.table.num_rows:
            valid = rows.table[name].combine_chunks().is_valid().to_numpy(zero_copy_only=False)
            yield Problem(name, f"{rows.first(valid)}: has values, but by the settings this run must have none")


def _planned_steps(rows: _Trajectories, name: str, interval: int | None) -> tuple[str, np.ndarray | None]:
    """The problem of a column of steps (empty if there is none), and the expected steps, if known."""
    lists, updates = Lists.of(rows.table, name), rows.updates
    first = 1 if name == "gradient_step" else 0
    if interval is not None and updates is not None:
        expected = np.array([step for step in range(first, updates + 1) if step % interval == 0 or step == updates])
    else:
        if not lists.valid.any():
            return "it is null in every row", None
        row = int(np.argmax(lists.valid))
        expected = np.array(lists.row(row))
        invalid = not len(expected) or expected[0] != first or (np.diff(expected) <= 0).any()
        if invalid or updates not in (None, expected[-1]):
            return f"{rows.label(row)}: {_steps_problem(expected.tolist(), None, first, updates)}", None
    wrong = lists.differs(expected)
    if not wrong.any():
        return "", expected
    row = int(np.argmax(wrong))
    steps = lists.row(row) if lists.valid[row] else None
    return f"{rows.first(wrong)}: {_steps_problem(steps, expected, first, updates)}", expected


def _imported_steps(rows: _Trajectories, name: str) -> tuple[str, np.ndarray | None]:
    """The same for imported runs: steps may begin and end anywhere, but must be the same in all rows."""
    lists = Lists.of(rows.table, name)
    if not lists.valid.any():
        return "it is null in every row", None
    row = int(np.argmax(lists.valid))
    steps, label = np.array(lists.row(row)), rows.label(row)
    if not len(steps) or (np.diff(steps) <= 0).any() or steps[0] < 0:
        return f"{label}: its steps are missing, below 0, or do not increase", None
    if rows.updates is not None and steps[-1] > rows.updates:
        return f"{label}: its steps end at {steps[-1]}, but the run has {rows.updates} updates", None
    wrong = lists.differs(steps)
    return f"{rows.first(wrong)}: its steps are not those of {label}" if wrong.any() else "", steps


def _steps_problem(
    steps: list[int | float] | None, expected: np.ndarray | None, first: int, updates: int | None
) -> str:
    if steps is None:
        return "there are no steps"
    if not steps or steps[0] != first:
        return f"its steps begin at {steps[0] if steps else 'none'}, not {first}"
    if not (np.diff(steps) > 0).all():
        index = int(np.argmin(np.diff(steps) > 0))
        return f"its steps do not increase: {steps[index + 1]} comes after {steps[index]}"
    if updates is not None and steps[-1] != updates:
        return f"its steps end at {steps[-1]}, but the run has {updates} updates"
    if expected is not None and len(steps) != len(expected):
        return f"it has {len(steps)} steps, but the settings give {len(expected)}"
    unexpected = sorted(set(steps) - set(expected.tolist())) if expected is not None else []
    return f"by the settings, step {some(unexpected)} is not measured"


def _has_metric(rows: _Trajectories, metric: str) -> np.ndarray | None:
    """`[rows]` whether the row's test example has a metric; None if unknown."""
    facts = rows.facts
    if metric in GRADIENT_COLUMNS:
        return np.ones(rows.table.num_rows, dtype=bool)
    if facts.task is None or facts.imported:
        return None
    if len(facts.task.test_parts) == 1:
        followed = facts.metrics or facts.task.followed_metrics
        return np.full(rows.table.num_rows, metric in names_of(followed))
    if not rows.unique:
        return None
    tasks = [facts.test_task(key) for key in rows.ids]
    return np.array([task is not None and metric in names_of(task.followed_metrics) for task in tasks])


def _values(rows: _Trajectories, name: str, steps: np.ndarray | None) -> Problems:
    """Checks that the right rows have values, one for each step, finite, and in the range of the metric."""
    lists, has_metric, metric = Lists.of(rows.table, name), _has_metric(rows, name), rows.metrics.get(name)
    if has_metric is not None:
        for wrong, problem in (
            (has_metric & ~lists.valid, "there are no values"),
            (~has_metric & lists.valid, "there are values, but it does not have this metric"),
        ):
            if wrong.any():
                yield Problem(name, f"{rows.first(wrong)}: {problem}")
    if steps is not None:
        wrong = lists.valid & (lists.lengths != len(steps))
        if wrong.any():
            yield Problem(name, f"{rows.first(wrong)}: it has {lists.lengths[wrong][0]} values for {len(steps)} steps")
    finite = np.isfinite(lists.flat)
    outside = metric.outside(lists.flat) if metric else np.zeros_like(finite)
    for wrong, problem in ((~finite, "not a finite number"), (outside, f"not {metric.allowed if metric else ''}")):
        if wrong.any():
            indices = np.flatnonzero(wrong)
            row, position = lists.position(int(indices[0]))
            step = f"step {steps[position]}" if steps is not None and position < len(steps) else f"value {position}"
            suffix = f" (and {len(indices) - 1} more)" if len(indices) > 1 else ""
            yield Problem(name, f"{rows.label(row)}, {step}: {lists.flat[indices[0]]:g} is {problem}{suffix}")
