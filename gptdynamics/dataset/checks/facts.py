"""What is known of a config before its runs are looked at."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from gptdynamics.configs import RunSettings, config_parts
from gptdynamics.dataset.checks.findings import Findings
from gptdynamics.dataset.folder import DatasetFolder, read_json
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.tasks import Mixture, Task, get_task

RESTORE = "Restore the manifest, or collect into another folder"

# More than any run has; what a damaged manifest asks for must not fill the memory.
_MOST, _MOST_RUNS = 10**7, 10**6
_COUNTS = ("pool_size", "subset", "batch_size", "epochs", "steps", "test_examples")


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
        imported: whether its runs come from a layout that does not say all that ours does: its metrics may be fewer
            than its task's, its examples without targets, its first measured step other than 0.
        pool, test: how many examples its task's pool and test set have; None where that was not looked at.
    """

    config: str
    task: Task | Mixture | None
    settings: RunSettings | None
    base_revision: str | None
    planned: dict[str, int]
    imported: bool = False
    pool: int | None = None
    test: int | None = None

    @property
    def test_ids(self) -> range | None:
        """Ids of the test examples that each run follows."""
        if self.settings is None or self.task is None:
            return None
        return range(self.settings.test_examples * len(self.task.test_parts))

    def test_task(self, test_id: int) -> Task | None:
        """The task of a test example."""
        return None if self.task is None else self.task.test_parts[test_id % len(self.task.test_parts)]


def config_facts(folder: DatasetFolder, config: str, findings: Findings) -> ConfigFacts:
    """Read a config's manifest; what is wrong with it becomes faults."""
    task: Task | Mixture | None = None
    path = folder.manifest_path(config)
    try:
        task = get_task(config_parts(config)[0])
    except GPTDynamicsError as error:
        findings.add(path, "", str(error), "Name the file of a task of your own with --task-file, or rename the config")
    nothing = ConfigFacts(config, task, None, None, {})
    if not path.is_file():
        findings.add(path, "", "there is no manifest of this config", RESTORE)
        return nothing
    try:
        manifest = read_json(path)
    except (GPTDynamicsError, RecursionError):
        findings.add(path, "", "not a JSON object", RESTORE)
        return nothing
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
    return ConfigFacts(config, task, made, revision, planned, imported=isinstance(manifest.get("origin"), dict))


def _counts(planned: dict[str, Any]) -> bool:
    return set(planned) == {"runs", "unseen_runs"} and all(
        type(at) is int and 0 <= at <= _MOST_RUNS for at in planned.values()
    )


def _settings(config: str, values: dict[str, Any], task: Task | Mixture | None) -> RunSettings | str | None:
    """The settings, None if there are none (or no task to understand them by), or what is wrong with them."""
    if not values:
        return None
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
