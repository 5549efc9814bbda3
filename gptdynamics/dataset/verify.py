"""Checks a dataset folder and lists all of its faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gptdynamics.configs import config_parts, planned_names, run_parts
from gptdynamics.dataset.checks.card import check_card
from gptdynamics.dataset.checks.examples import check_examples
from gptdynamics.dataset.checks.facts import ConfigFacts, config_facts
from gptdynamics.dataset.checks.findings import NOT_OURS, Fault, Findings, some
from gptdynamics.dataset.checks.gradients import check_products, check_vectors, is_kernel
from gptdynamics.dataset.checks.layout import ConfigFiles, Layout, read_layout
from gptdynamics.dataset.checks.runs import check_run_row
from gptdynamics.dataset.checks.tasks import check_tasks
from gptdynamics.dataset.checks.trajectories import check_trajectories
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.reading import local_root
from gptdynamics.dataset.status import VECTORS, held_claims
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.parsing import read_object
from gptdynamics.tasks import get_task

OnProgress = Callable[[int, int], None]

__all__ = ["Fault", "Verification", "verify", "verify_run"]


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        source: the dataset.
        configs: names of its configs.
        runs: number of finished runs that were checked.
        rows: number of rows that were read.
        faults: everything that is wrong.
        missing: planned runs that do not exist, by config; `base` stands for the projected gradients of the base
            model. Missing runs are not faults.
        failed: reasons of runs that diverged, by `<config>/<run>`. These are not faults.
        running: `<config>/<run>` of runs that a collector is making, and files that are being written.
    """

    source: str
    configs: list[str] = field(default_factory=list)
    runs: int = 0
    rows: int = 0
    faults: list[Fault] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no faults."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return vars(self) | {"ok": self.ok, "faults": [vars(fault) for fault in self.faults]}

    def summary(self) -> list[str]:
        """Lines about what was checked and what is incomplete, without the faults."""
        faults = f"faults: {len(self.faults)}" if self.faults else "no faults"
        lines = [f"{self.source}: {len(self.configs)} configs, {self.runs} runs, {self.rows} rows checked: {faults}"]
        for config, runs in self.missing.items():
            names = ["projected gradients" if run == VECTORS else run for run in runs]
            lines.append(f"{config}: planned, but missing: {some(names, most=6)}")
        lines += [f"{run}: diverged, so it has no values: {reason}" for run, reason in self.failed.items()]
        return lines + [f"{item}: in progress, not checked" for item in self.running]


def verify(source: str | Path, on_progress: OnProgress = lambda visited, total: None) -> Verification:
    """Check a dataset folder: every file against the settings of its config, and against the others.

    Args:
        source: a dataset folder or a Hub id.
        on_progress: called after each run with the number of checked runs and of all runs.

    Raises:
        DataError: `source` is neither a folder nor a dataset on the Hub. Faults inside it raise no error.

    Example:
        >>> import gptdynamics
        >>> gptdynamics.verify("gptdynamics").ok
        True
    """
    folder = DatasetFolder(local_root(str(source)))
    held = held_claims(folder.root)
    findings = Findings(folder.root)
    layout = read_layout(folder, findings)
    facts = {config: config_facts(folder, config, findings) for config in layout.configs}
    _check_examples(folder, layout, facts, findings)
    failed = {config: _failed(folder, config, findings) for config in layout.configs}
    running = layout.writing + [f"{config}/{run}" for config, run in sorted(held) if config in layout.configs]
    missing: dict[str, list[str]] = {}
    total = sum(len(files.runs) for files in layout.configs.values())
    visited = checked = 0
    for config, files in layout.configs.items():
        for run in files.runs:
            if (config, run) not in held or run in files.trajectories & files.rows:
                checked += _check_run(folder, facts[config], files, run, findings)
            visited += 1
            on_progress(visited, total)
        for run in sorted(failed[config].keys() & set(files.runs)):
            problem = f"run {run} is recorded as failed, but it has numbers"
            remedy = "Move one of the two out of the folder"
            findings.add(folder.sidecar_path(config, run, "failed"), "", problem, remedy)
        if files.vectors:
            files.vectors = _check_vectors(folder, facts[config], findings)
        if missing_runs := _missing(facts[config], files, failed[config], held):
            missing[config] = missing_runs
    check_tasks(folder, findings)
    check_card(folder, findings)
    reasons = {
        f"{config}/{run}": reason
        for config, config_failures in failed.items()
        for run, reason in config_failures.items()
    }
    return Verification(
        str(source), sorted(layout.configs), checked, findings.rows, findings.faults, missing, reasons, running
    )


def verify_run(folder: DatasetFolder | Path, config: str, run: str, facts: ConfigFacts | None = None) -> list[Fault]:
    """Check the files of a single run, against its config's manifest.

    `facts` is the content of the manifest; None: it is read, and its faults are returned, too. Raises SettingsError if
    `config` or `run` is not a valid name.
    """
    folder = folder if isinstance(folder, DatasetFolder) else DatasetFolder(folder)
    findings = Findings(folder.root)
    if facts is None:
        facts = config_facts(folder, config, findings)
    paths = folder.run_path(config, run), folder.run_row_path(config, run), folder.products_path(config, run)
    trajectories, rows, products = ({run} if path.exists() else set() for path in paths)
    files = ConfigFiles(trajectories, rows, products)
    _check_run(folder, facts, files, run, findings)
    return findings.faults


def _check_run(folder: DatasetFolder, facts: ConfigFacts, files: ConfigFiles, run: str, findings: Findings) -> bool:
    """Check the files of a run; returns whether its trajectories and its row both exist."""
    trajectories, row = folder.run_path(facts.config, run), folder.run_row_path(facts.config, run)
    products, settings = folder.products_path(facts.config, run), facts.settings
    absent = [name for name, runs in (("trajectories", files.trajectories), ("row", files.rows)) if run not in runs]
    if absent and run not in files.misnamed:
        present = [(trajectories, files.trajectories), (row, files.rows), (products, files.products)]
        path = next((path for path, runs in present if run in runs), trajectories)
        problem = f"run {run} has no {' and no '.join(absent)}: its collection was cut short, or a file was lost"
        findings.add(path, "", problem, "Run the same collect command again, or fetch the folder again")
    updates = settings.run_steps if settings else None
    if run in files.rows:
        updates = check_run_row(findings, row, facts, run)
    if run in files.trajectories:
        check_trajectories(findings, trajectories, facts, run, updates)
    follows = settings.follows_gradients(run) if settings else None
    if run in files.products and (follows is not False or is_kernel(products)):
        check_products(findings, products, facts, run, updates)
    elif settings and run in files.products:
        problem = f"with gradients = {settings.gradients!r}, run {run} has no products"
        findings.add(products, "", problem, "Move it out of the folder")
    elif settings and follows and not absent and run not in files.misnamed:
        problem = f"with gradients = {settings.gradients!r}, run {run} must have products, but they are missing"
        remedy = "Move the run's trajectories out of the folder and run the same collect command again"
        findings.add(products, "", problem, remedy)
    return not absent


def _check_vectors(folder: DatasetFolder, facts: ConfigFacts, findings: Findings) -> bool:
    """Check the projected gradients of a config; returns whether they are complete."""
    path = folder.vectors_path(facts.config)
    if facts.settings and facts.settings.gradients == "none":
        findings.add(path, "", "with gradients = 'none' there are no projected gradients", "Move it out of the folder")
        return True
    return check_vectors(findings, path, facts, unseen=(facts.planned or {}).get("unseen_runs", 0) > 0)


def _failed(folder: DatasetFolder, config: str, findings: Findings) -> dict[str, str]:
    """Reasons of failed runs; problems of a config's sidecar files become faults."""
    failed: dict[str, str] = {}
    for path in sorted((folder.root / "sidecar" / config).glob("*.json")):
        run, _, kind = path.stem.rpartition(".")
        try:
            run_parts(run)
            content = read_object(path)
        except SettingsError:
            findings.add(path, "", "not named <run>.timing.json or <run>.failed.json", NOT_OURS)
        except GPTDynamicsError:
            loss = "the time that the run took" if kind == "timing" else "why the run failed"
            remedy = f"Restore it, or move it out of the folder: only {loss} is lost"
            findings.add(path, "", "not a JSON object", remedy)
        else:
            if kind == "failed":
                failed[run] = str(content.get("reason"))
    return failed


def _missing(facts: ConfigFacts, files: ConfigFiles, failed: dict[str, str], held: set[tuple[str, str]]) -> list[str]:
    """Planned runs that neither exist nor are being made."""
    counts = facts.planned or {}
    planned = planned_names(counts.get("runs", 0), counts.get("unseen_runs", 0), facts.counterfactuals)
    if facts.settings is not None and facts.settings.gradients != "none":
        planned.append(VECTORS)
    present = {*files.runs, *files.misnamed, *failed, *([VECTORS] if files.vectors else [])}
    return [run for run in planned if run not in present and (facts.config, run) not in held]


def _check_examples(folder: DatasetFolder, layout: Layout, facts: dict[str, ConfigFacts], findings: Findings) -> None:
    """Check every task's examples, and that the configs' runs have enough of them; adds their counts to `facts`."""
    tasks = {config_parts(config)[0]: known.task for config, known in facts.items()}
    # In a damaged folder a task may have imported and collected configs: then its examples need no targets.
    imported = {config_parts(config)[0] for config, known in facts.items() if known.imported}
    counts: dict[tuple[str, str], int | None] = {}
    for name, parts in layout.examples.items():
        task = tasks.get(name)
        try:
            task = task or get_task(name)
        except GPTDynamicsError as error:
            if name not in tasks:
                findings.add(folder.root / "data" / f"{name}_examples", "", str(error), NOT_OURS)
        for part in parts:
            counts[name, part] = check_examples(findings, folder.examples_path(name, part), task, name in imported)
    absent: set[Path] = set()
    for config, known in list(facts.items()):
        name = config_parts(config)[0]
        facts[config] = replace(known, pool=counts.get((name, "pool")), test=counts.get((name, "test")))
        if not layout.configs[config].trajectories:
            continue
        for part, count in _needed_examples(known, layout.configs[config]).items():
            path = folder.examples_path(name, part)
            present = counts.get((name, part))
            if (name, part) not in counts and path not in absent:
                findings.add(path, "", f"there is no such file, but runs of {config} need it")
                absent.add(path)
            elif present is not None and present < count:
                problem = f"it ends at {present - 1}, but runs of {config} need ids up to {count - 1}"
                findings.add(path, "id", problem)


def _needed_examples(facts: ConfigFacts, files: ConfigFiles) -> dict[str, int]:
    """Numbers of pool and test examples that the runs of a config need."""
    shared = facts.settings or facts.recorded
    if shared is None or facts.task is None or facts.test_ids is None:
        return {"pool": 1, "test": 1}
    unseen = facts.settings is not None and any(run_parts(run).unseen for run in files.runs)
    pools = 2 if unseen else 1
    return {"pool": shared.pool_size * len(facts.task.parts) * pools, "test": len(facts.test_ids)}
