"""Proof that a dataset folder is sound, or every fault that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gptdynamics.configs import config_parts, run_name, run_parts
from gptdynamics.dataset.checks.card import check_card
from gptdynamics.dataset.checks.examples import check_examples
from gptdynamics.dataset.checks.facts import COLLECTED, ConfigFacts, config_facts
from gptdynamics.dataset.checks.findings import AGAIN, NOT_OURS, Fault, Findings
from gptdynamics.dataset.checks.gradients import check_products, check_vectors
from gptdynamics.dataset.checks.layout import ConfigFiles, Layout, read_layout
from gptdynamics.dataset.checks.runs import check_run_row
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
    """What `verify` found.

    Attributes:
        source: what was verified.
        configs: names of its configs.
        runs: finished runs that were checked.
        rows: of all files that were read.
        faults: everything that is wrong.
        missing: planned runs that are not there, by config; `base` stands for the projected gradients of the base
            model. A folder that is not complete is not faulty.
        failed: reasons of runs that diverged, by `<config>/<run>`. A run that is recorded as failed is not a fault.
        running: `<config>/<run>` of runs that a collector is making, and files that are being written now.
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
        """Whether nothing is wrong with what is there."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return vars(self) | {"ok": self.ok, "faults": [vars(fault) for fault in self.faults]}

    def summary(self) -> list[str]:
        """What was checked, and what is not complete, a line each. Faults are not among them."""
        found = f"faults: {len(self.faults)}" if self.faults else "no faults"
        lines = [f"{self.source}: {len(self.configs)} configs, {self.runs} runs, {self.rows} rows checked: {found}"]
        for config, runs in self.missing.items():
            named = ["projected gradients" if run == VECTORS else run for run in runs]
            shown = ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "")
            lines.append(f"{config}: planned, but not there yet: {shown}")
        lines += [f"{run}: diverged, so it has no numbers: {reason}" for run, reason in self.failed.items()]
        lines += [f"{what}: in the making, not checked" for what in self.running]
        return lines


def verify(source: str | Path, on_progress: OnProgress = lambda done, total: None) -> Verification:
    """Check a dataset folder: every file against the settings of its config, and against the others.

    Args:
        source: a dataset folder or a Hub id.
        on_progress: called with the number of runs that were checked, and of all, after each.

    Raises:
        DataError: `source` is neither a folder nor a dataset on the Hub. What is wrong inside it is never raised.

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
    done = checked = 0
    for config, files in layout.configs.items():
        for run in files.runs:
            if not ((config, run) in held and not {run} <= files.trajectories & files.rows):
                checked += _check_run(folder, facts[config], files, run, findings)
            done += 1
            on_progress(done, total)
        for run in sorted(failed[config].keys() & set(files.runs)):
            path = folder.sidecar_path(config, run, "failed")
            findings.add(
                path,
                "",
                f"run {run} is recorded as failed, but it has numbers",
                "Move one of the two out of the folder",
            )
        if files.vectors:
            files.vectors = _check_vectors(folder, facts[config], findings)
        lacking = _missing(facts[config], files, failed[config], held)
        if lacking:
            missing[config] = lacking
    check_card(folder, findings)
    return Verification(
        source=str(source),
        configs=sorted(layout.configs),
        runs=checked,
        rows=findings.rows,
        faults=findings.faults,
        missing=missing,
        failed={f"{config}/{run}": why for config, each in failed.items() for run, why in each.items()},
        running=running,
    )


def verify_run(folder: DatasetFolder | Path, config: str, run: str, facts: ConfigFacts | None = None) -> list[Fault]:
    """Check the files of a single run, against its config's manifest.

    Args:
        folder: the dataset folder.
        config: name of the config.
        run: name of the run.
        facts: what the manifest says, if it was read already; else it is read, and its faults are among those returned.

    Raises:
        SettingsError: `config` or `run` is no name of one.
    """
    folder = folder if isinstance(folder, DatasetFolder) else DatasetFolder(folder)
    findings = Findings(folder.root)
    if facts is None:
        facts = config_facts(folder, config, findings)
    files = ConfigFiles()
    for path, runs in (
        (folder.run_path(config, run), files.trajectories),
        (folder.run_row_path(config, run), files.rows),
        (folder.products_path(config, run), files.products),
    ):
        if path.exists():
            runs.add(run)
    _check_run(folder, facts, files, run, findings)
    return findings.faults


def _check_run(folder: DatasetFolder, facts: ConfigFacts, files: ConfigFiles, run: str, findings: Findings) -> bool:
    """Check the files of a run; whether they are all there."""
    config = facts.config
    own = {
        "trajectories": (folder.run_path(config, run), run in files.trajectories),
        "row": (folder.run_row_path(config, run), run in files.rows),
        "gradient products": (folder.products_path(config, run), run in files.products),
    }
    there = [path for path, present in own.values() if present]
    lacks = [name for name in ("trajectories", "row") if not own[name][1]]
    if lacks and run not in files.misnamed:
        said = f"run {run} has no {' and no '.join(lacks)}: its collection was cut short, or a file was lost"
        path = there[0] if there else own["trajectories"][0]
        findings.add(path, "", said, "Run the same collect command again, or fetch the folder again")
    updates = facts.settings.run_steps if facts.settings else None
    if run in files.rows:
        updates = check_run_row(findings, own["row"][0], facts, run)
    if run in files.trajectories:
        check_trajectories(findings, own["trajectories"][0], facts, run, updates)
    products = own["gradient products"][0]
    follows = facts.settings.follows_gradients(run) if facts.settings else None
    if run in files.products:
        if follows is False:
            findings.add(
                products, "", f"gradients = {_gradients(facts)} records none for run {run}", "Move it out of the folder"
            )
        else:
            check_products(findings, products, facts, run, updates)
    elif follows and not lacks and run not in files.misnamed:
        said = f"gradients = {_gradients(facts)} records products for run {run}, and there are none"
        findings.add(
            products, "", said, "Move the run's trajectories out of the folder and run the same collect command again"
        )
    return not lacks


def _gradients(facts: ConfigFacts) -> str:
    return repr(facts.settings.gradients) if facts.settings else "none"


def _check_vectors(folder: DatasetFolder, facts: ConfigFacts, findings: Findings) -> bool:
    """Check the projected gradients of a config; whether they are all there."""
    path = folder.vectors_path(facts.config)
    if facts.settings and facts.settings.gradients == "none":
        findings.add(path, "", "gradients = 'none' makes no projected gradients", "Move it out of the folder")
        return True
    return check_vectors(findings, path, facts, unseen=facts.planned.get("unseen_runs", 0) > 0)


def _failed(folder: DatasetFolder, config: str, findings: Findings) -> dict[str, str]:
    """Reasons of failed runs. What is wrong with the sidecars of a config becomes faults."""
    failed: dict[str, str] = {}
    for path in sorted((folder.root / "sidecar" / config).glob("*.json")):
        run, _, kind = path.stem.rpartition(".")
        try:
            run_parts(run)
            content = read_object(path)
        except SettingsError:
            findings.add(path, "", "not named <run>.timing.json or <run>.failed.json", NOT_OURS)
            continue
        except (GPTDynamicsError, RecursionError):
            loss = "the time that the run took" if kind == "timing" else "why the run failed"
            findings.add(
                path, "", "not a JSON object", f"Restore it, or move it out of the folder: only {loss} is lost"
            )
            continue
        if kind == "failed":
            failed[run] = str(content.get("reason"))
    return failed


def _missing(facts: ConfigFacts, files: ConfigFiles, failed: dict[str, str], held: set[tuple[str, str]]) -> list[str]:
    """Planned runs that are not there and not being made."""
    planned = [run_name(at) for at in range(facts.planned.get("runs", 0))]
    planned += [run_name(at, unseen=True) for at in range(facts.planned.get("unseen_runs", 0))]
    there = {*files.runs, *files.misnamed, *failed}
    lacking = [run for run in planned if run not in there and (facts.config, run) not in held]
    wanted = facts.settings is not None and facts.settings.gradients != "none"
    if wanted and not files.vectors and (facts.config, VECTORS) not in held:
        lacking.append(VECTORS)
    return lacking


def _check_examples(folder: DatasetFolder, layout: Layout, facts: dict[str, ConfigFacts], findings: Findings) -> None:
    """Check every task's examples, and that they are as many as the configs' runs need; `facts` learn how many."""
    tasks = {config_parts(config)[0]: each.task for config, each in facts.items()}
    # A damaged folder may hold imported and collected configs of one task: then its examples need no targets.
    ordered = sorted(facts.values(), key=lambda each: each.requires.targets, reverse=True)
    requires = {config_parts(each.config)[0]: each.requires for each in ordered}
    counts: dict[tuple[str, str], int | None] = {}
    for name, parts in layout.examples.items():
        try:
            task = tasks.get(name) or get_task(name)
        except GPTDynamicsError as error:
            task = None
            if name not in tasks:
                findings.add(folder.root / "data" / f"{name}_examples", "", str(error), NOT_OURS)
        for part in parts:
            counts[name, part] = check_examples(
                findings, folder.examples_path(name, part), task, requires.get(name, COLLECTED)
            )
    absent: set[Path] = set()
    for config, each in list(facts.items()):
        name = config_parts(config)[0]
        facts[config] = replace(each, pool=counts.get((name, "pool")), test=counts.get((name, "test")))
        files = layout.configs[config]
        needed = {"pool": 1, "test": 1}
        known = each.settings or each.recorded
        if known and each.task and each.test_ids is not None:
            unseen = each.settings is not None and any(run_parts(run)[1] for run in files.runs)
            pool = known.pool_size * len(each.task.parts) * (2 if unseen else 1)
            needed = {"pool": pool, "test": len(each.test_ids)}
        for part, count in needed.items() if files.trajectories else ():
            path = folder.examples_path(name, part)
            if (name, part) not in counts and path not in absent:
                findings.add(path, "", f"there is no such file, and runs of {config} need it", AGAIN)
                absent.add(path)
            elif (has := counts.get((name, part))) is not None and has < count:
                findings.add(path, "id", f"it ends at {has - 1}, and runs of {config} need those up to {count - 1}")
