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
from gptdynamics.dataset.schema import GENERATED_METRICS, METRICS, RUN_SCHEMA, read_parquet, trajectory_schema
from gptdynamics.errors import DataError, DivergedRunError, GPTDynamicsError, SettingsError
from gptdynamics.exchange.examples import TaskExamples, read_examples
from gptdynamics.exchange.findings import Finding, Findings
from gptdynamics.exchange.names import UNKNOWN, RunFolder, config_names
from gptdynamics.exchange.origin import RunOrigin, origin_of, run_origins
from gptdynamics.exchange.reading import RUN_OUT, ReleasedRun, fit_together, read_run, run_folders
from gptdynamics.exchange.trajectories import MetricFile
from gptdynamics.tasks import get_task

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportedConfig:
    """One config of an import.

    Attributes:
        config: its name.
        base_model: of its runs.
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
    """What an import did, or would do.

    Attributes:
        source, out: the release and the dataset folder.
        dry_run: whether nothing was written.
        configs: that were imported.
        findings: what was not as it should be.
    """

    source: str
    out: str
    dry_run: bool
    configs: list[ImportedConfig] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """Runs in all."""
        return sum(len(config.runs) for config in self.configs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        configs = [vars(config) for config in self.configs]
        return vars(self) | {"configs": configs, "findings": [each.to_dict() for each in self.findings]}


def import_release(
    source: str | Path,
    out: Path,
    dry_run: bool = False,
    on_progress: OnProgress = lambda done, total: None,
    last: bool = False,
) -> Imported:
    """Read a release in the authors' layout and write its runs into a dataset folder.

    Runs are numbered in the order of the seeds in their folders' names; what was imported before keeps its number. What
    the layout does not say is null or `unknown` in the dataset. Runs of one config must have the same steps and test
    examples; those that do not have what most of them have are left out.

    Args:
        source: folder of the release, or a dataset's Hub id.
        out: the dataset folder to write to, or to go on with.
        dry_run: only say what would be imported.
        on_progress: called with the number of runs that were read, and of all, after each.
        last: where a step occurs with different values or batches take the last, as the authors' code does with
            batches; without it such a file does not count.

    Raises:
        DataError: it is no release in this layout, nothing in it can be imported, or `out` holds other values.
        SettingsError: `out` holds configs of the same names that were not imported.
    """
    check_dataset_folder(Path(out))
    root = local_root(str(source))
    findings = Findings()
    folders = run_folders(root, findings)
    examples = read_examples(root, findings)
    imported = Imported(str(source), str(out), dry_run, findings=findings.found)
    folder = DatasetFolder(out)
    done, written = 0, set()
    configs = config_names(folders)
    _check_tasks(folder, {runs[0].task for runs in configs.values()})
    if not dry_run:
        folder.remove_leftovers()
    for config, runs in configs.items():
        task = examples.get(runs[0].task, TaskExamples())
        problem = _problem(config, runs[0].task, task)
        if problem:
            findings.add(config, problem, f"its {len(runs)} runs are left out")
            done += len(runs)
            on_progress(done, len(folders))
            continue
        numbers = _numbers(folder, config, runs)
        failed: dict[str, str] = {}
        read: list[ReleasedRun] = []
        for each in runs:
            try:
                if run := read_run(root, each, task, findings, last):
                    read.append(run)
            except DivergedRunError as error:
                failed[numbers[each.path]] = str(error)
                findings.add(each.path, str(error), "the run is recorded as failed, without numbers")
            done += 1
            on_progress(done, len(folders))
        fitting = _same_length(fit_together(read, findings), findings)
        if not fitting:
            findings.add(config, "none of its runs can be used", "the config is left out")
            continue
        named = {numbers[run.folder.path]: run for run in fitting}
        imported.configs.append(_described(config, named, failed, task))
        if not dry_run:
            if runs[0].task not in written:
                folder.add_examples(runs[0].task, "pool", task.pool)
                folder.add_examples(runs[0].task, "test", task.test)
                written.add(runs[0].task)
            _write(folder, config, numbers, named, failed)
    if not imported.configs:
        said = f" ({findings.found[0]})" if findings.found else ""
        raise DataError(f"{source}: nothing in it can be imported{said}; see docs/authors-release.md for the layout")
    return imported


def _problem(config: str, task: str, examples: TaskExamples) -> str:
    """Why no run of a config can be imported; empty if it can."""
    try:
        config_parts(config)
        get_task(task)
    except GPTDynamicsError as error:
        return f"{error}; a task of your own is made known with --task-file"
    lacking = [name for name in ("pool", "test") if not getattr(examples, name)]
    kinds = " and no ".join("training examples" if name == "pool" else "test examples" for name in lacking)
    return f"there are no {kinds} of {task} in sft_tasks/ or it_tasks/" if lacking else ""


def _check_tasks(folder: DatasetFolder, tasks: set[str]) -> None:
    """Refuse to mix the examples of a task with those that runs of ours were collected on."""
    for config in folder.configs():
        if config_parts(config)[0] in tasks and folder.origin(config) is None:
            raise SettingsError(
                f"{folder.root} holds runs of {config} that were not imported, on other examples of the task: "
                "give another --out"
            )


def _numbers(folder: DatasetFolder, config: str, runs: list[RunFolder]) -> dict[str, str]:
    """The name of each run by its folder: those that were imported before, then on in the order of the seeds."""
    known = {origin.folder: name for name, origin in run_origins(folder, config).items()}
    taken = len(known)
    for run in runs:
        if run.path not in known:
            known[run.path] = run_name(taken)
            taken += 1
    return known


def _same_length(runs: list[ReleasedRun], findings: Findings) -> list[ReleasedRun]:
    """Only the runs that end where most of them do, and, of runs that go on unmeasured, as many updates."""
    lengths = [len(run.batches) for run in runs]
    usual = max(lengths, key=lambda length: (lengths.count(length), length), default=0)
    for run in runs:
        if len(run.batches) != usual:
            said = f"it has {len(run.batches)} updates, where most runs of its config have {usual}"
            findings.add(run.folder.path, said, RUN_OUT)
    return [run for run in runs if len(run.batches) == usual]


def _last_step(runs: dict[str, ReleasedRun]) -> int:
    return max(run.last_step for run in runs.values())


def _described(
    config: str, runs: dict[str, ReleasedRun], failed: dict[str, str], examples: TaskExamples
) -> ImportedConfig:
    first = next(iter(runs.values()))
    return ImportedConfig(
        config=config,
        base_model=first.folder.base_model,
        runs={name: run.folder.path for name, run in runs.items()},
        failed=failed,
        metrics=_metrics(runs),
        steps=_last_step(runs),
        first_step=first.metrics["loss"].step[0],
        pool=len(examples.pool),
        test=len(first.metrics["loss"].ids),
    )


def _metrics(runs: dict[str, ReleasedRun]) -> list[str]:
    return [metric for metric in METRICS if any(metric in run.metrics for run in runs.values())]


def _write(
    folder: DatasetFolder, config: str, numbers: dict[str, str], runs: dict[str, ReleasedRun], failed: dict[str, str]
) -> None:
    updates, metrics = _last_step(runs), tuple(_metrics(runs))
    tables = {name: (_row(config, name, run, updates), _trajectories(name, run, metrics)) for name, run in runs.items()}
    for name, own in tables.items():
        for path, table in zip((folder.run_row_path(config, name), folder.run_path(config, name)), own, strict=True):
            if path.exists() and not read_parquet(path).equals(table):
                raise DataError(f"{path}: it was imported with other values: give another --out")
    origins = run_origins(folder, config)
    origins |= {name: RunOrigin(path) for path, name in numbers.items() if name not in origins}
    origins |= {name: _origin(run, updates) for name, run in runs.items()}
    folder.begin_imported(config, UNKNOWN, len(origins), origin_of(origins))
    for name, (row, trajectories) in tables.items():
        folder.add_tables(config, name, row, trajectories)
    for name, reason in failed.items():
        folder.add_failure(config, name, reason)
    folder.write_card()


def _origin(run: ReleasedRun, updates: int) -> RunOrigin:
    orders = {name: each.ids for name, each in run.metrics.items() if each.ids != sorted(each.ids)}
    return RunOrigin(run.folder.path, orders, run.batches[updates:])


def _row(config: str, name: str, run: ReleasedRun, updates: int) -> pa.Table:
    """The row that describes a run; what its folder does not say is null."""
    folder = run.folder
    sizes = [len(batch) for batch in run.batches]
    row: dict[str, Any] = dict.fromkeys(RUN_SCHEMA.names) | {
        "run": name,
        "config": config,
        "task": folder.task,
        "scenario": get_task(folder.task).scenario,
        "base_model": folder.base_model,
        "base_revision": UNKNOWN,
        "seed": folder.seed,
        "index": run_parts(name)[0],
        "curriculum": run.batches[:updates],
        "learning_rate": linear_decay(folder.learning_rate, len(run.batches))[:updates],
        "optimizer": UNKNOWN,
        "schedule": "linear",
        "peak_learning_rate": folder.learning_rate,
        "weight_decay": folder.weight_decay,
        "batch_size": max(sizes, key=sizes.count),
        "epochs": folder.epochs,
        "subset": folder.sample,
        "gradients": "none",
        "versions": json.dumps({}),
    }
    return pa.Table.from_pylist([row], schema=RUN_SCHEMA)


def _trajectories(name: str, run: ReleasedRun, metrics: tuple[str, ...]) -> pa.Table:
    """A row for each test example, in the order of their ids."""
    loss = run.metrics["loss"]
    ids = sorted(loss.ids)
    generated = next((run.metrics[metric] for metric in GENERATED_METRICS if metric in run.metrics), None)
    schema = trajectory_schema(metrics, wide=True)
    columns: dict[str, Any] = {
        "run": [name] * len(ids),
        "test_id": ids,
        "step": [loss.step] * len(ids),
        "generation_step": [generated.step if generated else None] * len(ids),
    }
    for metric in metrics:
        columns[metric] = _lists(run.metrics[metric], ids) if metric in run.metrics else [None] * len(ids)
    return pa.table({column: columns[column] for column in schema.names}, schema=schema)


def _lists(measured: MetricFile, ids: list[int]) -> list[Any]:
    place = {key: at for at, key in enumerate(measured.ids)}
    return [measured.values[:, place[key]] if key in place else None for key in ids]
