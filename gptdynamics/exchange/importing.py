"""From the authors' layout into a dataset folder."""

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
        metrics: that at least one of its runs has.
        steps: updates of a run.
        first_step: the first at which loss was measured.
        pool, test: how many examples there are.
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
    """What an import did or, if `dry_run`, would do."""

    source: str
    out: str
    dry_run: bool = False
    configs: list[ImportedConfig] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    @property
    def runs(self) -> int:
        """Runs in all."""
        return sum(len(config.runs) for config in self.configs)


def import_release(
    source: str | Path,
    out: Path,
    dry_run: bool = False,
    on_progress: OnProgress = lambda done, total: None,
    last: bool = False,
) -> Imported:
    """Read a release in the authors' layout and write its runs into a dataset folder.

    Runs are numbered in the order of the seeds in their folders' names; runs imported before keep their numbers. What
    the layout does not say is null or `unknown` in the dataset. Runs of one config must have the same steps and test
    examples; those that do not have what most of them have are left out.

    Args:
        source: folder of the release, or a dataset's Hub id.
        out: the dataset folder to write to, or to go on with.
        dry_run: only say what would be imported.
        on_progress: called with the number of runs that were read, and of all, after each.
        last: if a step occurs with different values or batches, take the last, as the authors' code does with batches;
            without it such a file does not count.

    Raises:
        DataError: it is no release in this layout, nothing in it can be imported, or `out` holds other values.
        SettingsError: `out` holds configs of the same names that were not imported.
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
    done = 0
    for config, runs in configs.items():
        task = examples.get(runs[0].task, TaskExamples())
        problem = _problem(config, runs[0].task, task)
        names = {} if problem else _run_names(folder, config, runs)
        failed: dict[str, str] = {}
        read: list[ReleasedRun] = []
        for each in runs:
            try:
                if not problem and (run := release.run(each, task)):
                    read.append(run)
            except DivergedRunError as error:
                failed[names[each.path]] = str(error)
                findings.add(each.path, str(error), "the run is recorded as failed, without numbers")
            done += 1
            on_progress(done, len(folders))
        usable = {names[run.folder.path]: run for run in fit_together(read, findings)}
        if problem:
            findings.add(config, problem, f"its {len(runs)} runs are left out")
        elif not usable:
            findings.add(config, "none of its runs can be used", "the config is left out")
        else:
            described = _described(config, usable, failed, task)
            imported.configs.append(described)
            if not dry_run:
                for part in ("pool", "test"):
                    folder.add_examples(runs[0].task, part, getattr(task, part))
                _write(folder, described, names, usable)
    if not imported.configs:
        first = f" ({findings[0]})" if findings else ""
        raise DataError(f"{source}: nothing in it can be imported{first}; the layout: docs/how-to/read-the-data.md")
    return imported


def _problem(config: str, task: str, examples: TaskExamples) -> str:
    """Why no run of a config can be imported; empty if it can."""
    try:
        config_parts(config)
        get_task(task)
    except GPTDynamicsError as error:
        return f"{error}; a task of your own is made known with --task-file"
    parts = {"training examples": examples.pool, "test examples": examples.test}
    missing = " and no ".join(name for name, rows in parts.items() if not rows)
    return f"there are no {missing} of {task} in sft_tasks/ or it_tasks/" if missing else ""


def _check_tasks(folder: DatasetFolder, tasks: set[str]) -> None:
    """Refuse to mix the examples of a task with those that runs of ours were collected on."""
    for config in folder.configs():
        if config_parts(config)[0] in tasks and folder.origin(config) is None:
            raise SettingsError(
                f"{folder.root} holds runs of {config} that were not imported, on other examples of the task: "
                "give another --output"
            )


def _run_names(folder: DatasetFolder, config: str, runs: list[RunFolder]) -> dict[str, str]:
    """The name of each run by its folder: those that were imported before, then on in the order of the seeds."""
    names = {origin.folder: name for name, origin in run_origins(folder, config).items()}
    for path in [run.path for run in runs if run.path not in names]:
        names[path] = run_name(len(names))
    return names


def _described(
    config: str, runs: dict[str, ReleasedRun], failed: dict[str, str], examples: TaskExamples
) -> ImportedConfig:
    first = next(iter(runs.values()))
    return ImportedConfig(
        config=config,
        base_model=first.folder.base_model,
        runs={name: run.folder.path for name, run in runs.items()},
        failed=failed,
        metrics=[metric for metric in METRICS if any(metric in run.metrics for run in runs.values())],
        steps=max(measured.step[-1] for run in runs.values() for measured in run.metrics.values()),
        first_step=first.metrics["loss"].step[0],
        pool=len(examples.pool),
        test=len(first.metrics["loss"].ids),
    )


def _write(
    folder: DatasetFolder, described: ImportedConfig, names: dict[str, str], runs: dict[str, ReleasedRun]
) -> None:
    config, updates = described.config, described.steps
    schema = trajectory_schema(resolve_metrics(described.metrics), wide=True)
    origins = {name: RunOrigin(path) for path, name in names.items()} | run_origins(folder, config)
    tables = {}
    for name, run in runs.items():
        orders = {metric: each.ids for metric, each in run.metrics.items() if each.ids != sorted(each.ids)}
        origins[name] = RunOrigin(run.folder.path, orders, run.batches[updates:])
        tables[name] = _row(config, name, run, updates), _trajectories(name, run, schema)
        paths = folder.run_row_path(config, name), folder.run_path(config, name)
        for path, table in zip(paths, tables[name], strict=True):
            if path.exists() and not read_parquet(path).equals(table):
                raise DataError(f"{path}: it was imported with other values: give another --output")
    folder.begin_imported(config, UNKNOWN, len(origins), origin_of(origins))
    for name, (row, trajectories) in tables.items():
        folder.add_tables(config, name, row, trajectories)
    for name, reason in described.failed.items():
        folder.add_failure(config, name, reason)
    folder.write_card()


def _row(config: str, name: str, run: ReleasedRun, updates: int) -> pa.Table:
    """The row that describes a run; what its folder does not say is null."""
    folder = run.folder
    sizes = [len(batch) for batch in run.batches]
    same = ("task", "base_model", "seed", "weight_decay", "epochs")
    row: dict[str, Any] = {column: getattr(folder, column) for column in same} | {
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
    """A row for each test example, in the order of their ids; what was not measured is null."""
    loss = run.metrics["loss"]
    generated = [each.step for metric, each in run.metrics.items() if METRICS[metric].needs_text]
    steps = {"step": loss.step, "generation_step": generated[0] if generated else None}
    values = {metric: dict(zip(each.ids, each.values.T, strict=True)) for metric, each in run.metrics.items()}
    rows = [
        {"run": name, "test_id": key} | steps | {metric: columns.get(key) for metric, columns in values.items()}
        for key in sorted(loss.ids)
    ]
    return pa.Table.from_pylist(rows, schema=schema)
