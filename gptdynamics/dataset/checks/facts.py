"""The facts about a config that its runs are checked against."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptdynamics.configs import EARLIER_SETTINGS, RunSettings, config_parts, is_of_type
from gptdynamics.dataset.checks.findings import RESTORE, Findings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import COUNTS, recorded_metrics
from gptdynamics.dataset.recorded import Recorded
from gptdynamics.dataset.schema import RECORDED_RUN_SCHEMA, RUN_SCHEMA
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.metrics import METRICS, Metric
from gptdynamics.parsing import read_object
from gptdynamics.tasks import Mixture, Task, get_task

# More than any run has: numbers in a damaged manifest must not fill the memory.
_MOST, _MOST_RUNS = 10**7, 10**6
_LARGE = ("pool_size", "subset", "batch_size", "epochs", "steps", "test_examples")


@dataclass(frozen=True)
class ConfigFacts:
    """The content of a config's manifest; None for entries that are missing or damaged.

    Attributes:
        config: its name.
        task: of its name.
        settings: of its runs. None: its runs were not collected, or the manifest is damaged; runs are then only checked
            for consistency with each other.
        base_revision: of the model that its runs start from.
        planned: planned numbers of `runs` and `unseen_runs`.
        counterfactuals: planned number of counterfactual runs, by base run.
        recorded: settings that its runs share, if they were recorded from a user's training.
        imported: whether its runs were imported. Imported runs may lack metrics other than the loss, and may have any
            ascending steps and ids of examples, 64-bit metrics, and examples whose prompt and target are one text.
        metrics: of its runs, if the manifest lists them; None: those of its task.
        pool, test: numbers of examples in its task's pool and test set; None: not checked yet.
    """

    config: str
    task: Task | Mixture | None
    settings: RunSettings | None = None
    base_revision: str | None = None
    planned: dict[str, int] | None = None
    counterfactuals: dict[str, int] | None = None
    recorded: Recorded | None = None
    imported: bool = False
    metrics: tuple[Metric, ...] | None = None
    pool: int | None = None
    test: int | None = None

    @property
    def test_ids(self) -> range | None:
        """Ids of the test examples of each run."""
        shared = self.settings or self.recorded
        if shared is None or self.task is None:
            return None
        return range(shared.test_examples * len(self.task.test_parts))

    @property
    def pool_ids(self) -> range | None:
        """Ids of the pool that its runs draw from."""
        if self.settings is not None:
            return self.settings.pool_ids
        if self.recorded is None or self.task is None:
            return None
        return range(self.recorded.pool_size * len(self.task.parts))

    @property
    def own_metrics(self) -> dict[str, Metric]:
        """The metrics that its task defines, by name."""
        return {metric.name: metric for metric in self.metrics or () if metric.name not in METRICS}

    def run_schema(self, columns: Collection[str] = ()) -> pa.Schema:
        """Columns of the rows that describe its runs.

        Args:
            columns: of a run's row, which say how it was made where the manifest is missing or damaged.
        """
        unknown = self.settings is None and self.recorded is None
        own = set(RECORDED_RUN_SCHEMA.names) - set(RUN_SCHEMA.names)
        return RECORDED_RUN_SCHEMA if self.recorded or (unknown and own <= set(columns)) else RUN_SCHEMA

    def test_task(self, test_id: int | None) -> Task | None:
        """The task of a test example."""
        if self.task is None or test_id is None:
            return None
        return self.task.test_parts[test_id % len(self.task.test_parts)]


def config_facts(folder: DatasetFolder, config: str, findings: Findings) -> ConfigFacts:
    """Read a config's manifest; its problems become faults."""
    path = folder.manifest_path(config)
    manifest = _manifest(path, findings)
    recorded = None
    if manifest is not None and "recording" in manifest:
        try:
            recorded = _recorded(config, manifest["recording"])
        except GPTDynamicsError as error:
            findings.add(path, "recording", str(error), RESTORE)
    task: Task | Mixture | None = None
    try:
        name = config_parts(config)[0]
        task = get_task(name) if recorded is None else recorded.task(name)
    except GPTDynamicsError as error:
        findings.add(path, "", str(error), "Or rename the config")
    if manifest is None:
        return ConfigFacts(config, task)
    settings, metrics = None, None
    try:
        settings = _settings(config, manifest.get("settings"), task)
    except GPTDynamicsError as error:
        findings.add(path, "settings", str(error), RESTORE)
    revision = manifest.get("base_revision")
    if not isinstance(revision, str) or not revision:
        findings.add(path, "base_revision", f"{revision!r} does not identify a base model", RESTORE)
        revision = None
    planned = manifest.get("planned")
    counterfactuals = planned.pop("counterfactuals", None) if isinstance(planned, dict) else None
    if counterfactuals is not None and not _are_counterfactuals(counterfactuals):
        problem = f"counterfactuals {counterfactuals!r} must be numbers of runs by base run"
        findings.add(path, "planned", problem, RESTORE)
        counterfactuals = None
    if (
        not isinstance(planned, dict)
        or set(planned) != set(COUNTS)
        or not all(type(count) is int and 0 <= count <= _MOST_RUNS for count in planned.values())
    ):
        findings.add(path, "planned", f"{planned!r} must have the numbers of runs and unseen_runs", RESTORE)
        planned = None
    try:
        metrics = recorded_metrics(manifest)
    except SettingsError as error:
        findings.add(path, "metrics", str(error), RESTORE)
    imported = isinstance(manifest.get("origin"), dict)
    return ConfigFacts(config, task, settings, revision, planned, counterfactuals, recorded, imported, metrics)


def _are_counterfactuals(values: Any) -> bool:
    return isinstance(values, dict) and all(
        re.fullmatch("[0-9]{4,}", base) and type(count) is int and 0 <= count <= _MOST_RUNS
        for base, count in values.items()
    )


def _manifest(path: Path, findings: Findings) -> dict[str, Any] | None:
    if not path.is_file():
        findings.add(path, "", "there is no manifest of this config", RESTORE)
        return None
    try:
        return read_object(path)
    except GPTDynamicsError:
        findings.add(path, "", "not a JSON object", RESTORE)
        return None


def _recorded(config: str, values: Any) -> Recorded:
    if not isinstance(values, dict):
        raise SettingsError("it is not an object")
    recorded = Recorded.of(values)
    if recorded.declared:
        recorded.task(config_parts(config)[0])
    return recorded


def _settings(config: str, values: Any, task: Task | Mixture | None) -> RunSettings | None:
    """The settings; None if there are none, or the task is unknown.

    Raises:
        SettingsError: they are damaged.
    """
    if not isinstance(values, dict):
        raise SettingsError("not an object")
    if not values:
        return None
    values = EARLIER_SETTINGS | values
    types = {field.name: str(field.type) for field in fields(RunSettings)}
    problems = [f"lacks {name}" for name in types if name not in values]
    problems += [f"unknown {name}" for name in values if name not in types]
    problems += [
        f"{name} = {values[name]!r} is not of type {kind}"
        for name, kind in types.items()
        if name in values and not is_of_type(values[name], kind)
    ]
    if not problems and values["config"] != config:
        problems.append(f"config = {values['config']!r}, but the manifest is named for {config}")
    if problems:
        raise SettingsError("; ".join(problems))
    if task is None:
        return None
    if values["seed"] < 0:
        raise SettingsError(f"seed = {values['seed']} must be at least 0")
    for name in _LARGE:
        if (values[name] or 0) > _MOST:
            raise SettingsError(f"{name} = {values[name]} is more than {_MOST}")
    return RunSettings(**values)
