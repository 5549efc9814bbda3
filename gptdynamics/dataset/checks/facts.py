"""What is known of a config before its runs are looked at."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptdynamics.configs import EARLIER_SETTINGS, RunSettings, config_parts
from gptdynamics.dataset.checks.findings import Findings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import recorded_metrics
from gptdynamics.dataset.recorded import Recorded
from gptdynamics.dataset.schema import RECORDED_RUN_SCHEMA, RUN_SCHEMA
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.metrics import METRICS, Metric
from gptdynamics.parsing import read_object
from gptdynamics.tasks import Mixture, Task, get_task

RESTORE = "Restore the manifest, or collect into another folder"

# More than any run has; what a damaged manifest asks for must not fill the memory.
_MOST, _MOST_RUNS = 10**7, 10**6
_COUNTS = ("pool_size", "subset", "batch_size", "epochs", "steps", "test_examples")


@dataclass(frozen=True)
class Requirements:
    """What the files of a config must hold. Runs that were imported from another layout need not hold all of it.

    Attributes:
        every_metric: each metric of the task for each test example; otherwise the loss is enough.
        planned_steps: metrics are measured from step 0 to the last update, as the settings say; otherwise at any
            ascending steps up to the last update.
        consecutive_ids: ids of examples are 0, 1, 2, ...; otherwise any ascending ids.
        targets: prompt and target are separate texts, and each example of a mixture names its own task.
        wide_metrics: metrics are 64-bit numbers.
    """

    every_metric: bool = True
    planned_steps: bool = True
    consecutive_ids: bool = True
    targets: bool = True
    wide_metrics: bool = False


COLLECTED = Requirements()
IMPORTED = Requirements(
    every_metric=False, planned_steps=False, consecutive_ids=False, targets=False, wide_metrics=True
)


@dataclass(frozen=True)
class ConfigFacts:
    """What the manifest says of a config; None where it does not say it, or where it is damaged.

    Attributes:
        config: its name.
        task: that it is named for.
        settings: of its runs. None: its runs were recorded elsewhere, or the manifest is damaged; then runs are
            only checked against themselves.
        base_revision: of the model that its runs start from.
        planned: how many `runs` and `unseen_runs` it shall have.
        recorded: what its runs share, if they were recorded in training of somebody's own.
        requires: what its files must hold.
        metrics: that its runs are followed by, if the manifest records them; else they are its task's.
        pool, test: how many examples its task's pool and test set have; None where that was not looked at.
    """

    config: str
    task: Task | Mixture | None
    settings: RunSettings | None
    base_revision: str | None
    planned: dict[str, int]
    recorded: Recorded | None = None
    requires: Requirements = COLLECTED
    metrics: tuple[Metric, ...] | None = None
    pool: int | None = None
    test: int | None = None

    @property
    def test_ids(self) -> range | None:
        """Ids of the test examples that each run follows."""
        known = self.settings or self.recorded
        if known is None or self.task is None:
            return None
        return range(known.test_examples * len(self.task.test_parts))

    @property
    def own_metrics(self) -> dict[str, Metric]:
        """Of its metrics those that are its task's own, by name."""
        return {metric.name: metric for metric in self.metrics or () if metric.name not in METRICS}

    @property
    def run_schema(self) -> pa.Schema:
        """Columns of the rows that describe its runs."""
        return RUN_SCHEMA if self.recorded is None else RECORDED_RUN_SCHEMA

    def test_task(self, test_id: int) -> Task | None:
        """The task of a test example."""
        return None if self.task is None else self.task.test_parts[test_id % len(self.task.test_parts)]


def config_facts(folder: DatasetFolder, config: str, findings: Findings) -> ConfigFacts:
    """Read a config's manifest; what is wrong with it becomes faults."""
    path = folder.manifest_path(config)
    manifest = _manifest(path, findings)
    recorded = None
    if manifest is not None and "recording" in manifest:
        recorded = _recorded(config, manifest["recording"], path, findings)
    task: Task | Mixture | None = None
    try:
        name = config_parts(config)[0]
        task = get_task(name) if recorded is None else recorded.task(name)
    except GPTDynamicsError as error:
        findings.add(path, "", str(error), "Or rename the config")
    if manifest is None:
        return ConfigFacts(config, task, None, None, {})
    settings, revision = manifest.get("settings"), manifest.get("base_revision")
    made = _settings(config, settings, task) if isinstance(settings, dict) else "not an object"
    if isinstance(made, str):
        findings.add(path, "settings", made, RESTORE)
        made = None
    if not isinstance(revision, str) or not revision:
        findings.add(path, "base_revision", f"{revision!r} does not identify a base model", RESTORE)
        revision = None
    planned = manifest.get("planned")
    if not isinstance(planned, dict) or not _counts(planned):
        findings.add(path, "planned", f"{planned!r} does not say how many runs and unseen_runs there shall be", RESTORE)
        planned = {}
    requires = IMPORTED if isinstance(manifest.get("origin"), dict) else COLLECTED
    metrics = None
    try:
        metrics = recorded_metrics(manifest)
    except SettingsError as error:
        findings.add(path, "metrics", str(error), RESTORE)
    return ConfigFacts(config, task, made, revision, planned, recorded, requires, metrics)


def _manifest(path: Path, findings: Findings) -> dict[str, Any] | None:
    """What a manifest holds; None, and a fault, where it cannot be read."""
    if not path.is_file():
        findings.add(path, "", "there is no manifest of this config", RESTORE)
        return None
    try:
        return read_object(path)
    except (GPTDynamicsError, RecursionError):
        findings.add(path, "", "not a JSON object", RESTORE)
        return None


def _recorded(config: str, values: Any, path: Path, findings: Findings) -> Recorded | None:
    """What recorded runs share."""
    try:
        if not isinstance(values, dict):
            raise SettingsError("it is not an object")
        recorded = Recorded.of(values)
        if recorded.declared:
            recorded.task(config_parts(config)[0])
    except GPTDynamicsError as error:
        findings.add(path, "recording", str(error), RESTORE)
        return None
    return recorded


def _counts(planned: dict[str, Any]) -> bool:
    return set(planned) == {"runs", "unseen_runs"} and all(
        type(at) is int and 0 <= at <= _MOST_RUNS for at in planned.values()
    )


def _settings(config: str, values: dict[str, Any], task: Task | Mixture | None) -> RunSettings | str | None:
    """The settings, None if there are none (or no task to understand them by), or what is wrong with them."""
    if not values:
        return None
    values = EARLIER_SETTINGS | values
    known = {field.name: str(field.type) for field in fields(RunSettings)}
    problems = [f"lacks {name}" for name in known if name not in values]
    problems += [f"unknown {name}" for name in values if name not in known]
    problems += [
        f"{name} = {values[name]!r} is not of type {kind}"
        for name, kind in known.items()
        if name in values and not _fits(values[name], kind)
    ]
    if not problems and values["config"] != config:
        problems.append(f"config = {values['config']!r}, but the manifest is named for {config}")
    if problems:
        return "; ".join(problems)
    if task is None:
        return None
    if values["seed"] < 0:
        return f"seed = {values['seed']} must be at least 0"
    too_many = [name for name in _COUNTS if (values[name] or 0) > _MOST]
    if too_many:
        return f"{too_many[0]} = {values[too_many[0]]} is more than {_MOST}"
    try:
        return RunSettings(**values)
    except GPTDynamicsError as error:
        return str(error)


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return "None" in kind
    if "str" in kind or "Literal" in kind:
        return isinstance(value, str)
    return type(value) is int or (type(value) is float and "float" in kind)
