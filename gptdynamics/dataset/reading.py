"""Runs of one config and one metric as arrays, from a folder or from the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptdynamics.configs import SPLITS_ON_REQUEST, Split, Tokenization, config_parts, split_of
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import kind_of
from gptdynamics.dataset.run_files import read_run_row, read_trajectories, values_of
from gptdynamics.dataset.schema import COLLECT_AGAIN, EXAMPLE_SCHEMA, read_parquet
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.hub.source import SHORT_NAME, bundled_configs, missing_config_error, source_of
from gptdynamics.metrics import METRICS, Metric
from gptdynamics.parsing import parse_object

# Larger arrays, in bytes, are mapped from a file, of which only the parts in use are in memory.
LARGEST_HELD = 2**30


def run_array(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array to be filled run by run; a large one is mapped from an unnamed temporary file."""
    if 4 * int(np.prod(shape)) <= LARGEST_HELD:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile(prefix="gptdynamics-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


@dataclass(frozen=True, repr=False)
class Dynamics:
    """Runs of one config, one metric. R runs, S measured steps, M test examples, T updates.

    Attributes:
        source: folder or Hub id of the dataset.
        config, metric: names of the config and the metric.
        runs: names of the R runs.
        curricula: R curricula, `[T][batch]` pool ids each.
        learning_rate: `[R, T]`, the rate of each update.
        step: `[S]` steps at which the metric was measured, 0 first; in imported runs it may be 1.
        values: `[R, M, S]` float32; more than a GiB of them are in a mapped file.
        pool: pool examples in id order.
        test: the M test examples, in the order of `values`.
        base_model, base_revision: of the model that the runs started from.
        batch_size: examples in an update.
        tokenization: how prompts and targets were tokenised.
        token_rule: what tells that from other ways, see `DatasetFolder.token_rule`; empty: not known.
        own_metric: the definition of the metric, if the task defines it.
    """

    source: str
    config: str
    metric: str
    runs: list[str]
    curricula: list[Curriculum]
    learning_rate: np.ndarray
    step: np.ndarray
    values: np.ndarray
    pool: list[Example]
    test: list[Example]
    base_model: str
    base_revision: str
    batch_size: int
    tokenization: Tokenization = "joined"
    token_rule: str = ""
    own_metric: Metric | None = None

    def __repr__(self) -> str:
        steps = f"{len(self.step)} measured steps ({self.step[0]} to {self.step[-1]})"
        return (
            f"{self.definition.axis_title} of {self.config}: {len(self.runs)} runs, {steps}, "
            f"{len(self.test)} test examples"
        )

    def plot(self, run: str | None = None, test_ids: Sequence[int] = ()) -> Any:
        """A plotly figure of measured trajectories.

        Args:
            run: name of the run; default: the first.
            test_ids: ids of test examples; default: the first five, and the mean over all.

        Raises:
            SettingsError: there is no such run or test example.
            ImportError: plotly is not installed.
        """
        from plotly.graph_objects import Figure

        ids = [example.id for example in self.test]
        run = run or self.runs[0]
        unknown = [key for key in test_ids if key not in ids]
        if run not in self.runs or unknown:
            missing = f"test example {unknown[0]}" if unknown else f"run {run!r}"
            raise SettingsError(f"{self.source}: no {missing} of {self.config}; see {self!r}")
        values = self.values[self.runs.index(run)]
        figure = Figure(layout={"template": "plotly_white", "title": {"text": f"{self.config}, run {run}"}})
        figure.update_layout(xaxis_title="training step", yaxis_title=self.definition.axis_title)
        for key in test_ids or ids[:5]:
            figure.add_scatter(x=self.step, y=values[ids.index(key)], name=f"test example {key}", mode="lines")
        if not test_ids:
            figure.add_scatter(
                x=self.step, y=values.mean(0), name=f"mean of {len(ids)}", mode="lines", line={"width": 4}
            )
        return figure

    @property
    def definition(self) -> Metric:
        """The definition of the metric: its title, range and direction."""
        return self.own_metric or METRICS[self.metric]

    def split(self, *splits: Split) -> Dynamics:
        """The runs of the given splits; raises DataError if there are none."""
        indices = [index for index, run in enumerate(self.runs) if split_of(run) in splits]
        if not indices:
            raise DataError(
                f"{self.source}: {self.config} has no {' or '.join(splits)} runs; "
                f"collect at least 6 runs (it has {len(self.runs)})"
            )
        return self.take(indices)

    def take(self, indices: list[int]) -> Dynamics:
        """The runs with these indices, in this order."""
        lists: dict[str, Any] = {
            name: [getattr(self, name)[index] for index in indices] for name in ("runs", "curricula")
        }
        values = run_array((len(indices), *self.values.shape[1:]))
        for position, index in enumerate(indices):
            values[position] = self.values[index]
        return Dynamics(**(vars(self) | lists | {"learning_rate": self.learning_rate[indices], "values": values}))


def local_root(source: str) -> Path:
    """The folder of a dataset: `source` itself, or a local copy of the Hub repository with that id.

    The short name stands for all of `$GPTDYNAMICS_DATASET`, the bundled sample, or the release on the Hub.

    Raises:
        DataError: it is neither a folder nor a repository that can be read.
    """
    if source == SHORT_NAME:
        source = source_of(next(iter(bundled_configs()), ""))
    path = Path(source)
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise DataError(f"{source}: no such dataset folder. Name a folder or a Hub id <owner>/<name>")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, repo_type="dataset"))
    except Exception as error:  # an invalid name, a lost connection, a full disk, an unexpected answer
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{source}: neither a folder nor a dataset that can be read from the Hub ({reason})") from error


def read_examples(folder: DatasetFolder, task: str, part: str) -> list[Example]:
    """The examples of a task, in the order of their ids; null texts become empty. `part` is `pool` or `test`.

    Raises DataError if the file is missing or damaged.
    """
    path = folder.examples_path(task, part)
    if not path.exists():
        raise DataError(f"{path}: no such file; run the collect command again to write it")
    try:
        rows = read_parquet(path, EXAMPLE_SCHEMA.names).cast(EXAMPLE_SCHEMA).to_pylist()
    except (pa.ArrowException, ValueError) as error:  # ValueError: of columns in another order
        raise DataError(f"{path}: its columns are not those of examples ({error}). Restore it") from error
    ids = [row["id"] for row in rows]
    if None in ids or len(set(ids)) < len(ids):
        raise DataError(f"{path}: an id is missing, or occurs twice. Restore it")
    return [
        Example(
            id=row["id"],
            prompt=row["prompt"] or "",
            target=row["target"] or "",
            references=tuple(row["references"] or ()),
            task=row["task"] or "",
            source=parse_object(row["source"] or "{}", f"{path}: source of example {row['id']}"),
        )
        for row in rows
    ]


def _pool(examples: list[Example], rows: list[dict[str, Any]], unseen: bool) -> list[Example]:
    """The examples that runs may train on, without the rows of `test_unseen` unless such runs are read.

    Imported runs do not record the size of their pool, and may train on any row.
    """
    if any(row["pool_size"] is None for row in rows):
        return examples
    tasks = len({example.task for example in examples})
    size = max(row["pool_size"] for row in rows) * tasks * (2 if unseen else 1)
    return [example for example in examples if example.id < size]


def metrics_of(source: str | Path, config: str) -> list[str]:
    """The metrics that were measured in the runs of a config.

    Raises:
        SettingsError: the config is unknown; the message lists the available ones.
        DataError: a file is damaged.
    """
    config_parts(config)
    source, folder = folder_of_config(source, config)
    return _metrics(folder, config, _finished(folder, source, config))


def check_metric(source: str | Path, config: str, metric: str, known: Sequence[str] | None = None) -> None:
    """Raise SettingsError if the runs of a config were not measured in a metric; `known` are those that they were.

    Errors besides as of `metrics_of`.
    """
    available = metrics_of(source, config) if known is None else known
    if metric not in available:
        raise SettingsError(f"{config} has no metric {metric!r}; it has: {', '.join(available)}")


def folder_of_config(source: str | Path, config: str) -> tuple[str, DatasetFolder]:
    """The source that a config is read from, and its folder: the dataset of the short name depends on the config."""
    if str(source) != SHORT_NAME:
        return str(source), DatasetFolder(local_root(str(source)))
    source = source_of(config)
    try:
        return source, DatasetFolder(local_root(source))
    except DataError as error:
        raise missing_config_error(config, source, error.__cause__ or error, []) from error


def only_config(source: str) -> str:
    """The config of a dataset that has runs of one; raises SettingsError if it has none, or several."""
    folder = DatasetFolder(local_root(source))
    configs = [name for name in folder.configs() if folder.finished(name)]
    if len(configs) == 1:
        return configs[0]
    if not configs:
        raise SettingsError(f"{source} has no finished runs: record or collect some")
    raise SettingsError(f"{source} has several configs: say which with --config: {', '.join(configs)}")


def is_recorded(source: str, config: str) -> bool:
    """Whether the runs of a config were recorded in somebody's own training."""
    folder = DatasetFolder(local_root(source))
    return folder.manifest_path(config).exists() and kind_of(folder.manifest(config)) == "recorded"


def _finished(folder: DatasetFolder, source: str | Path, config: str, *requested: Split) -> list[str]:
    finished = [
        run for run in folder.finished(config) if split_of(run) not in SPLITS_ON_REQUEST or split_of(run) in requested
    ]
    if not finished:
        available = ", ".join(name for name in folder.configs() if folder.finished(name)) or "none"
        raise SettingsError(f"{source} has no runs of config {config!r}; it has: {available}")
    return finished


def _metrics(folder: DatasetFolder, config: str, finished: list[str]) -> list[str]:
    columns = read_trajectories(folder.run_path(config, finished[0]), finished[0]).column_names
    return [name for name in folder.metrics(config) if name in columns]


def read_dynamics(
    source: str | Path, config: str, metric: str = "loss", unseen: bool = False, counterfactual: bool = False
) -> Dynamics:
    """Read every finished run of a config.

    Args:
        source: a dataset folder, a Hub id, or the short name, whose dataset depends on the config.
        config: `<task>_<size>`.
        metric: one of `gptdynamics.metrics.METRICS`, or one that the task defines. Test examples and runs without the
            metric are left out: imported runs may lack some metrics.
        unseen: also read the runs of `test_unseen`; the pool then includes their rows.
        counterfactual: also read the runs of `counterfactual`: runs repeated with pool rows left out. If they were
            measured less often, all runs are read at their steps.

    Raises:
        SettingsError: the config or the metric is unknown; the message lists the available ones.
        DataError: a file is damaged, or the runs do not fit together.

    Example:
        >>> import gptdynamics
        >>> runs = gptdynamics.read_dynamics("gptdynamics", "rte_nano")
        >>> runs.split("test")
        loss (nats per token) of rte_nano: 4 runs, 97 measured steps (0 to 96), 100 test examples
    """
    task, _ = config_parts(config)
    source, folder = folder_of_config(source, config)
    requested = [split for split, included in zip(SPLITS_ON_REQUEST, (unseen, counterfactual), strict=True) if included]
    finished = _finished(folder, source, config, *requested)
    check_metric(source, config, metric, _metrics(folder, config, finished))
    own_metrics = folder.own_metrics(config)
    step_column = (METRICS | own_metrics)[metric].step_column
    # One run at a time, because all runs together may not fit in memory.
    measured: list[str] = []
    values, test_ids, step = np.empty(0), [], np.empty(0)
    for run in finished:
        path = folder.run_path(config, run)
        table = read_trajectories(path, run, [step_column, metric])
        table = table.filter(pc.is_valid(table[metric]))
        if not table.num_rows:
            continue
        run_step, run_values = values_of(table, path, metric, step_column)
        if not measured:
            test_ids, step = table["test_id"].to_pylist(), run_step
            values = run_array((len(finished), len(test_ids), len(step)))
        if split_of(run) == "counterfactual" and set(run_step) < set(step):
            values, step = values[..., np.isin(step, run_step)], run_step
        if table["test_id"].to_pylist() != test_ids or run_step.tolist() != step.tolist():
            raise DataError(f"{path}: its test examples or steps differ from those of run {measured[0]}")
        if not np.isfinite(run_values).all():
            raise DataError(f"{path}: {metric} has values that are not finite. {COLLECT_AGAIN}")
        values[len(measured)] = run_values
        measured.append(run)
    if not measured:
        raise SettingsError(f"{config} has no values of metric {metric!r} in any run")
    rows = [read_run_row(folder.run_row_path(config, run), config, run) for run in measured]
    updates = len(rows[0]["curriculum"])
    longer = [f"{row['run']} ({len(row['curriculum'])})" for row in rows if len(row["curriculum"]) != updates]
    if longer:
        raise DataError(
            f"{source}: runs of {config} have different numbers of updates: {', '.join(longer)}, and {measured[0]} "
            f"({updates}). Record runs of each length as a config of their own"
        )
    if step[-1] > updates:
        raise DataError(f"{source}: {config} was measured at step {step[-1]}, after its last update")
    by_id = {example.id: example for example in read_examples(folder, task, "test")}
    missing = sorted(set(test_ids) - by_id.keys())
    if missing:
        raise DataError(f"{folder.examples_path(task, 'test')}: test example {missing[0]} is missing")
    pool = _pool(read_examples(folder, task, "pool"), rows, unseen)
    unknown = {key for row in rows for batch in row["curriculum"] for key in batch} - {example.id for example in pool}
    if unknown:
        raise DataError(f"{folder.examples_path(task, 'pool')}: pool example {min(unknown)} is missing")
    return Dynamics(
        source=str(source),
        config=config,
        metric=metric,
        runs=[row["run"] for row in rows],
        curricula=[row["curriculum"] for row in rows],
        learning_rate=np.array([row["learning_rate"] for row in rows]),
        step=step,
        values=values[: len(measured)],
        pool=pool,
        test=[by_id[key] for key in test_ids],
        base_model=rows[0]["base_model"],
        base_revision=rows[0]["base_revision"],
        batch_size=rows[0]["batch_size"],
        tokenization=folder.tokenization(config),
        token_rule=folder.token_rule(config),
        own_metric=own_metrics.get(metric),
    )
