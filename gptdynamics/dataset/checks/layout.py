"""Assigns the files of a dataset folder to runs and tasks, and finds files that belong to none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gptdynamics.atomic import leftovers
from gptdynamics.configs import RESERVED_SIZES, SPLITS, config_parts, run_parts, split_of
from gptdynamics.dataset.checks.findings import NOT_OURS, Findings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import SettingsError

_TEMPORARY = re.compile(r"\..*\.(\d+)@([^/]*)\.[^.]*\.tmp")
_KINDS = ("runs", "gradients")


@dataclass
class ConfigFiles:
    """The runs of a config that have each kind of file.

    Attributes:
        trajectories, rows, products: runs that have this file.
        misnamed: runs with a file that is named for another split.
        vectors: whether the projected gradients of the base model exist.
    """

    trajectories: set[str] = field(default_factory=set)
    rows: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)
    misnamed: set[str] = field(default_factory=set)
    vectors: bool = False

    @property
    def runs(self) -> list[str]:
        """Runs that have a file: those on the pool, on unseen rows, then counterfactual runs."""
        return sorted(self.trajectories | self.rows | self.products, key=lambda run: run_parts(run).order)


@dataclass
class Layout:
    """The files of a dataset folder.

    Attributes:
        configs: files by config.
        examples: files of each task's examples, `pool` or `test`.
        writing: files that a process on this machine is writing now.
    """

    configs: dict[str, ConfigFiles] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    writing: list[str] = field(default_factory=list)


def read_layout(folder: DatasetFolder, findings: Findings) -> Layout:
    """Read the names of all files; files that belong to no config and no task become faults."""
    layout = Layout()
    ambiguous: set[str] = set()
    for path in sorted(folder.root.glob("manifests/*.json")):
        if _is_config(path.stem):
            layout.configs[path.stem] = ConfigFiles()
        elif path.stem.rpartition("_")[2].casefold() in RESERVED_SIZES:
            ambiguous |= {path.stem, *(f"{path.stem}_{kind}" for kind in _KINDS)}
            problem = "a config's name may not have this ending: load_dataset confuses its files with another config's"
            findings.add(path, "", problem, "Collect it again under another name; its files were not checked")
        else:
            findings.add(path, "", "not named for a config", NOT_OURS)
    unfinished = set(leftovers(folder.root))
    for path in sorted(folder.root.rglob(".*.tmp")):
        if path in unfinished:
            problem = "a process was killed while it wrote this file"
            findings.add(path, "", problem, "Run collect again: it removes this file")
        elif _TEMPORARY.fullmatch(path.name):
            layout.writing.append(path.relative_to(folder.root).as_posix())
        else:
            findings.add(path, "", "a temporary file of another program", NOT_OURS)
    for path in _entries(folder.root / "data"):
        if path.name in ambiguous:
            for part in ("pool", "test"):
                if path.name.endswith("_examples") and (path / f"{part}.parquet").is_file():
                    layout.examples.setdefault(path.name.removesuffix("_examples"), []).append(part)
        elif not path.is_dir() or not _add_files(path, layout, findings):
            findings.add(path, "", "belongs to no config and no task", NOT_OURS)
    return layout


def _entries(folder: Path) -> Iterator[Path]:
    """The entries of a folder, without temporary files."""
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if not (path.name[0] == "." and path.suffix == ".tmp"))


def _is_config(name: str) -> bool:
    try:
        config_parts(name)
    except SettingsError:
        return False
    return True


def _add_files(path: Path, layout: Layout, findings: Findings) -> bool:
    """Add the files in a folder of data to the layout; returns False if the folder's name is invalid."""
    task = path.name.removesuffix("_examples")
    if task and task != path.name:
        for file in _entries(path):
            if file.name in ("pool.parquet", "test.parquet"):
                layout.examples.setdefault(task, []).append(file.stem)
            else:
                findings.add(file, "", "examples are in pool.parquet and test.parquet only", NOT_OURS)
        return True
    kind = next((suffix for suffix in _KINDS if path.name.endswith(f"_{suffix}")), "")
    config = path.name.removesuffix(f"_{kind}") if kind else path.name
    if not _is_config(config):
        return False
    for file in _entries(path):
        files = layout.configs.setdefault(config, ConfigFiles())
        if kind == "gradients" and file.name == "base.parquet":
            files.vectors = True
        elif run := _run_of(file, files, findings):
            {"": files.trajectories, "runs": files.rows, "gradients": files.products}[kind].add(run)
    return True


def _run_of(file: Path, files: ConfigFiles, findings: Findings) -> str | None:
    """The run that a file belongs to, by its name; None, and a fault, if the name is wrong."""
    split, _, run = file.stem.partition("-")
    try:
        correct = split_of(run)
    except SettingsError:
        correct = None
    if correct is None or file.suffix != ".parquet" or split not in SPLITS:
        findings.add(file, "", "not named <split>-<run>.parquet", NOT_OURS)
        return None
    if split != correct:
        files.misnamed.add(run)
        remedy = f"Rename it to {correct}-{run}.parquet, or move it out of the folder if that file exists"
        findings.add(file, "", f"run {run} belongs to split {correct}, not {split}", remedy)
        return None
    return run
