"""Import of a release in the authors' layout into a dataset folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptdynamics.configs import SPLITS, config_parts, run_name, run_parts, split_of
from gptdynamics.curriculum import linear_decay
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.ownership import check_dataset_folder
from gptdynamics.dataset.reading import local_root
from gptdynamics.dataset.schema import RUN_SCHEMA, read_parquet, trajectory_schema
from gptdynamics.errors import DataError, DivergedRunError, GPTDynamicsError, SettingsError
from gptdynamics.exchange.files import UNKNOWN
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.names import RunFolder, config_names
from gptdynamics.exchange.origin import RunOrigin, origin_of, run_origins
from gptdynamics.exchange.release import Release, ReleasedRun, TaskExamples, fit_together
from gptdynamics.metrics import METRICS, resolve_metrics
from gptdynamics.tasks import get_task

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportedConfig:
    """One config of an import.

    Attributes:
        runs: folders in the release, by the names of the runs.
        failed: reasons of runs that diverged, by run.
        metrics: of its runs, each of at least one run.
        steps: number of updates of a run.
        first_step: the first step at which the loss was measured.
        pool, test: numbers of examples.
    """

    config: str
    base_model: str
    runs: dict[str, str]
    failed: dict[str, str]
    metrics: list[str]
    steps: int
    first_step: int
    pool: int
    test: int

    def summary(self) -> str:
        """One line."""
        counts = "/".join(str(sum(split_of(run) == split for run in self.runs)) for split in SPLITS[:3])
        return (
            f"{self.config}: {len(self.runs)} runs ({counts} train/validation/test) of {self.steps} updates on "
            f"{self.base_model}, {', '.join(self.metrics)} from step {self.first_step}, {self.pool} training and "
            f"{self.test} test examples"
        )


@dataclass
class Imported:
    """The result of an import or, if `dry_run`, what it would import."""

    source: str
    out: str
    dry_run: bool = False
    configs: list[ImportedConfig] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    @property
    def runs(self) -> int:
        """Number of runs in all configs."""
        return sum(len(config.runs) for config in self.configs)


def import_release(
    source: str | Path,
    out: Path,
    dry_run: bool = False,
    on_progress: OnProgress = lambda checked, total: None,
    last: bool = False,
) -> Imported:
    """Read a release in the authors' layout and write its runs to a dataset folder.

    Runs are numbered in the order of the seeds in their folders' names; runs imported before keep their numbers. What
    the layout does not say is null or `unknown` in the dataset. Runs of one config must have the same steps and test
    examples; runs that differ from the most frequent ones are left out.

    Args:
        source: folder of the release, or a dataset's Hub id.
        out: the dataset folder to write to, or to continue.
        dry_run: only report what would be imported.
        on_progress: called after each run with the number of runs read and of all runs.
        last: if a step occurs with different values or batches, use the last, as the authors' code does with batches;
            without it such a file is left out.

    Raises:
        DataError: it is not a release in this layout, nothing in it can be imported, or `out` has other values.
        SettingsError: `out` has configs of the same names that were not imported.
    """
    check_dataset_folder(Path(out))
    release = Release(local_root(str(source)), last=last)
    findings, folders, examples = release.findings, release.folders(), release.examples()
    imported = Imported(str(source), str(out), dry_run, findings=findings)
    folder = DatasetFolder(out)
    configs = config_names(folders)
    _check_tasks(folder, {runs[0].task for runs in configs.values()})
    if not dry_run:
        folder.remove_leftovers()
    checked = 0
    for config, runs in configs.items():
        task = examples.get(runs[0].task, TaskExamples())
        problem = _problem(config, runs[0].task, task)
        names = {} if problem else _run_names(folder, config, runs)
        failed: dict[str, str] = {}
        read: list[ReleasedRun] = []
        for run_folder in runs:
            try:
                if not problem and (run := release.run(run_folder, task)):
                    read.append(run)
            except DivergedRunError as error:
                failed[names[run_folder.path]] = str(error)
                findings.add(run_folder.path, str(error), "the run is recorded as failed, without values")
            checked += 1
            on_progress(checked, len(folders))
        usable = {names[run.folder.path]: run for run in fit_together(read, findings)}
        if problem:
            findings.add(config, problem, f"its {len(runs)} runs are left out")
        elif not usable:
            findings.add(config, "none of its runs can be used", "the config is left out")
        else:
            summary = _config_summary(config, usable, failed, task)
            imported.configs.append(summary)
            if not dry_run:
                for part in ("pool", "test"):
                    folder.add_examples(runs[0].task, part, getattr(task, part))
                _write(folder, summary, names, usable)
    if not imported.configs:
        first = f" ({findings[0]})" if findings else ""
        raise DataError(f"{source}: nothing in it can be imported{first}; the layout: docs/how-to/read-the-data.md")
    return imported


def _problem(config: str, task: str, examples: TaskExamples) -> str:
    """Why no run of a config can be imported; empty if they can."""
    try:
        config_parts(config)
        get_task(task)
    except GPTDynamicsError as error:
        return f"{error}; name the file of a task of your own with --task-file"
    parts = {"training examples": examples.pool, "test examples": examples.test}
    missing = " and no ".join(name for name, rows in parts.items() if not rows)
    return f"there are no {missing} of {task} in sft_tasks/ or it_tasks/" if missing else ""


def _check_tasks(folder: DatasetFolder, tasks: set[str]) -> None:
    """Raise SettingsError if the folder has collected or recorded runs of these tasks, which have other examples."""
    for config in folder.configs():
        if config_parts(config)[0] in tasks and folder.origin(config) is None:
            raise SettingsError(
                f"{folder.root} has runs of {config} that were not imported, on other examples of the task: "
                "give another --output"
            )


def _run_names(folder: DatasetFolder, config: str, runs: list[RunFolder]) -> dict[str, str]:
    """The name of each run by its folder: existing names of runs imported before, then new ones in order of seeds."""
    names = {origin.folder: name for name, origin in run_origins(folder, config).items()}
    for path in [run.path for run in runs if run.path not in names]:
        names[path] = run_name(len(names))
    return names


def _config_summary(
    config: str, runs: dict[str, ReleasedRun], failed: dict[str, str], examples: TaskExamples
) -> ImportedConfig:
    first_run = next(iter(runs.values()))
    return ImportedConfig(
        config=config,
        base_model=first_run.folder.base_model,
        runs={name: run.folder.path for name, run in runs.items()},
        failed=failed,
        metrics=[metric for metric in METRICS if any(metric in run.metrics for run in runs.values())],
        steps=max(measured.step[-1] for run in runs.values() for measured in run.metrics.values()),
        first_step=first_run.metrics["loss"].step[0],
        pool=len(examples.pool),
        test=len(first_run.metrics["loss"].ids),
    )


def _write(folder: DatasetFolder, summary: ImportedConfig, names: dict[str, str], runs: dict[str, ReleasedRun]) -> None:
    config, updates = summary.config, summary.steps
    schema = trajectory_schema(resolve_metrics(summary.metrics), wide=True)
    origins = {name: RunOrigin(path) for path, name in names.items()} | run_origins(folder, config)
    tables = {}
    for name, run in runs.items():
        orders = {
            metric: measured.ids for metric, measured in run.metrics.items() if measured.ids != sorted(measured.ids)
        }
        origins[name] = RunOrigin(run.folder.path, orders, run.batches[updates:])
        tables[name] = _row(config, name, run, updates), _trajectories(name, run, schema)
        paths = folder.run_row_path(config, name), folder.run_path(config, name)
        for path, table in zip(paths, tables[name], strict=True):
            if path.exists() and not read_parquet(path).equals(table):
                raise DataError(f"{path}: it was imported with other values: give another --output")
    folder.begin_imported(config, UNKNOWN, len(origins), origin_of(origins))
    for name, (row, trajectories) in tables.items():
        folder.add_tables(config, name, row, trajectories)
    for name, reason in summary.failed.items():
        folder.add_failure(config, name, reason)
    folder.write_card()


def _row(config: str, name: str, run: ReleasedRun, updates: int) -> pa.Table:
    """The row that describes a run; values that its folder's name lacks are null."""
    folder = run.folder
    sizes = [len(batch) for batch in run.batches]
    copied_columns = ("task", "base_model", "seed", "weight_decay", "epochs")
    row: dict[str, Any] = {column: getattr(folder, column) for column in copied_columns} | {
        "run": name,
        "config": config,
        "scenario": get_task(folder.task).scenario,
        "base_revision": UNKNOWN,
        "index": run_parts(name).index,
        "curriculum": run.batches[:updates],
        "learning_rate": linear_decay(folder.learning_rate, len(run.batches))[:updates],
        "optimizer": UNKNOWN,
        "schedule": "linear",
        "peak_learning_rate": folder.learning_rate,
        "batch_size": max(sizes, key=sizes.count),
        "subset": folder.sample,
        "gradients": "none",
        "versions": json.dumps({}),
    }
    return pa.Table.from_pylist([row], schema=RUN_SCHEMA)


def _trajectories(name: str, run: ReleasedRun, schema: pa.Schema) -> pa.Table:
    """A row for each test example, in the order of their ids; metrics that were not measured are null."""
    loss = run.metrics["loss"]
    generated = [measured.step for metric, measured in run.metrics.items() if METRICS[metric].needs_text]
    steps = {"step": loss.step, "generation_step": generated[0] if generated else None}
    values = {metric: dict(zip(measured.ids, measured.values, strict=True)) for metric, measured in run.metrics.items()}
    rows = [
        {"run": name, "test_id": key} | steps | {metric: columns.get(key) for metric, columns in values.items()}
        for key in sorted(loss.ids)
    ]
    return pa.Table.from_pylist(rows, schema=schema)
