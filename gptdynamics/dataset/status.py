"""The status of a dataset folder: runs that are done, running, failed and missing, and the time that is left."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdynamics.configs import SPLITS, Split, planned_names, split_of
from gptdynamics.dataset.checks.findings import some
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import COUNTS
from gptdynamics.errors import DataError
from gptdynamics.parsing import read_object
from gptdynamics.plans import Plan

if TYPE_CHECKING:
    from rich.table import Table

_TIMED = ("update", "loss", "generation", "gradients", "products")
VECTORS = "base"
# Of the columns of the table: runs of each split.
_HEADINGS = ("train", "val", "test", "unseen", "again")
_STATES = ("done", "running", "failed", "missing")


@dataclass(frozen=True)
class ConfigStatus:
    """The status of one config. Runs are in the order of the plan.

    Attributes:
        done: planned runs that are finished.
        running: planned runs that a collector has claimed.
        failed: reasons of planned runs that diverged, by run.
        missing: planned runs that are neither done, running nor failed.
        extra: finished runs that are not planned.
        projecting: whether a collector is computing the projected gradients of the base model.
        seconds, timed: seconds that its finished runs took, and the number of these runs that have a timing.
    """

    config: str
    done: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    projecting: bool = False
    seconds: float = 0.0
    timed: int = 0

    @property
    def planned(self) -> int:
        """Number of planned runs."""
        return len(self.done) + len(self.running) + len(self.failed) + len(self.missing)

    @property
    def seconds_left(self) -> float | None:
        """Seconds of one worker for the missing and the running runs; None if no finished run has a timing."""
        unfinished = len(self.missing) + len(self.running)
        if not unfinished:
            return 0.0
        return unfinished * self.seconds / self.timed if self.timed else None

    def counts(self, split: Split) -> dict[str, int]:
        """Numbers of planned runs of a split that are `done`, `running`, `failed` and `missing`."""
        return {state: sum(split_of(run) == split for run in getattr(self, state)) for state in _STATES}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("done", "running", "missing", "extra")}
        return {
            "config": self.config,
            "planned": self.planned,
            **lists,
            "failed": dict(self.failed),
            "splits": {split: self.counts(split) for split in SPLITS if any(self.counts(split).values())},
            "projecting": self.projecting,
            "seconds": self.seconds,
            "seconds_left": self.seconds_left,
        }


def held_claims(root: Path) -> set[tuple[str, str]]:
    """Config and run (`VECTORS` for projected gradients) of the jobs that a collector is doing now.

    Tested with a shared lock on the claim's file: it writes nothing, needs no write permission, and two processes that
    test at the same time do not mistake each other for collectors.
    """
    held = set()
    for path in root.glob(".claims/*.lock"):
        config, _, run = path.name.removesuffix(".lock").rpartition(".")
        if config and _held(path):
            held.add((config, run))
    return held


def _held(path: Path) -> bool:
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def folder_status(out: Path, plan: Plan | None = None) -> list[ConfigStatus]:
    """The status of each config of a folder.

    Args:
        out: the dataset folder.
        plan: its planned runs; None: those in its manifests.

    Raises:
        DataError: without a plan, the folder does not exist or has no config; or one of its files is damaged.
        SettingsError: a config has other settings than in the plan; the message lists them.
    """
    folder = DatasetFolder(out)
    if plan is None:
        if not folder.root.is_dir():
            raise DataError(f"{out}: no such dataset folder; name the --output of collect")
        planned = {config: _planned(folder, config) for config in folder.configs()}
        if not planned:
            raise DataError(f"{out}: it has no configs; name a plan with --plan to see what it would collect")
    else:
        for entry in plan:
            folder.check_settings(entry)
        planned = {entry.config: entry.run_names for entry in plan}
    held = held_claims(folder.root)
    return [_config_status(folder, config, runs, held) for config, runs in planned.items()]


def _planned(folder: DatasetFolder, config: str) -> list[str]:
    if not folder.manifest_path(config).exists():
        return folder.finished(config)
    counts = folder.manifest(config)["planned"]
    try:
        runs, unseen = (int(counts.get(name, 0)) for name in COUNTS)
        return planned_names(runs, unseen, counts.get("counterfactuals"))
    except (AttributeError, TypeError, ValueError) as error:
        path = folder.manifest_path(config)
        raise DataError(f"{path}: planned {counts!r} must be numbers of runs. Restore it, or give --plan") from error


def _config_status(folder: DatasetFolder, config: str, planned: list[str], held: set[tuple[str, str]]) -> ConfigStatus:
    # Claims were read before the files, so a run that has ended since then counts as done.
    finished, failed = folder.finished(config), folder.failed(config)
    done, planned_runs = set(finished), set(planned)
    extra = [run for run in finished if run not in planned_runs]
    status = ConfigStatus(config, extra=extra, projecting=(config, VECTORS) in held)
    for run in planned:
        if run in done:
            status.done.append(run)
        elif run in failed:
            status.failed[run] = failed[run]
        elif (config, run) in held:
            status.running.append(run)
        else:
            status.missing.append(run)
    times = [spent for run in finished if (spent := _seconds(folder.sidecar_path(config, run, "timing"))) is not None]
    return ConfigStatus(**(vars(status) | {"seconds": sum(times), "timed": len(times)}))


def _seconds(path: Path) -> float | None:
    """Seconds that a run took; None if unknown."""
    try:
        timing = read_object(path)
        spent = float(sum(timing.get(name, 0.0) for name in _TIMED))
    except (DataError, TypeError):
        return None
    return spent if math.isfinite(spent) else None


def status_table(statuses: list[ConfigStatus]) -> Table:
    """A row for each config, in 80 columns: done and planned runs by split, running, failed, missing, times.

    A column that would be empty is left out.
    """
    from rich import box
    from rich.table import Table

    def runs_of(split: Split) -> list[str]:
        counts = [status.counts(split) for status in statuses]
        return [f"{each['done']}/{total}" if (total := sum(each.values())) else "-" for each in counts]

    columns = {heading: runs_of(split) for heading, split in zip(_HEADINGS, SPLITS, strict=True)}
    for state in ("running", "failed", "missing"):
        numbers = [len(getattr(status, state)) for status in statuses]
        columns[state] = [str(number) if number else "-" for number in numbers]
    columns["spent"] = [short_time(status.seconds) for status in statuses]
    columns["left"] = [short_time(status.seconds_left) for status in statuses]

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0))
    filled = {heading: cells for heading, cells in columns.items() if set(cells) != {"-"}}
    table.add_column("config", overflow="fold")
    for heading in filled:
        table.add_column(heading, justify="right", no_wrap=True)
    for status, *cells in zip(statuses, *filled.values(), strict=True):
        table.add_row(status.config, *cells)
    return table


def status_notes(statuses: list[ConfigStatus]) -> list[str]:
    """Lines in addition to the table: all runs together, the running jobs, why runs failed."""
    done, planned = sum(len(status.done) for status in statuses), sum(status.planned for status in statuses)
    left = [status.seconds_left for status in statuses]
    total = sum(status for status in left if status is not None)
    notes = [f"{done} of {planned} runs done"]
    if total:
        unknown = sum(status is None for status in left)
        exception = f", without {unknown} configs that have no finished run yet" if unknown else ""
        notes[0] += f"; left: {short_time(total)} with one worker{exception}"
    for status in statuses:
        if status.running:
            notes.append(f"{status.config}: running now: {', '.join(status.running)}")
        if status.projecting:
            notes.append(f"{status.config}: running now: projected gradients of the base model")
        notes += [f"{status.config}: run {run} diverged: {reason}" for run, reason in status.failed.items()]
        if status.extra:
            notes.append(f"{status.config}: finished, but not planned: {some(status.extra)}")
    return notes


def short_time(seconds: float | None) -> str:
    """A time in at most six characters: `41s`, `12m`, `3h05m`, `2d04h`; `?` if it is unknown."""
    if seconds is None:
        return "?"
    if seconds < 59.5:
        return f"{seconds:.0f}s" if seconds else "-"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h" if days < 100 else f"{days}d"
