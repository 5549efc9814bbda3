"""What one collection is asked to do, and what it did."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from gptdynamics.collection.own_data import fit_settings
from gptdynamics.errors import SettingsError
from gptdynamics.plans import Plan, PlanEntry, read_plan
from gptdynamics.ranges import COUNT, check_fields
from gptdynamics.settings.collect import CollectCommand, RaySettings
from gptdynamics.tasks.kept_tasks import remember_kept_tasks


@dataclass(frozen=True)
class CollectSettings:
    """What one `collect` does.

    Attributes:
        plan: the configs and how many runs of each; runs that are there already are not made again.
        out: the dataset folder.
        data: folder with local rows; None: generated rows or the Hub.
        workers: processes, with one thread each. None: one for each GPU, or for each core without one; on a Ray
            cluster as many as it has room for.
        device: `cpu`, `cuda` (all GPUs), one of them such as `cuda:1`, or `auto`: GPUs if there are any.
        ray: the Ray cluster that makes the runs; None: this machine does.
        notes: a line about each config whose settings were fitted to its rows.
    """

    plan: Plan
    out: Path
    data: Path | None = None
    workers: int | None = None
    device: str = "auto"
    ray: RaySettings | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, {"workers": COUNT})
        kind, _, number = self.device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdecimal())):
            raise SettingsError(f"device={self.device!r} must be auto, cpu, cuda or cuda:<number>")
        if number and self.ray is not None:
            raise SettingsError(f"device={self.device!r}: a Ray cluster gives GPUs out itself: give cuda")

    def devices(self) -> list[str]:
        """The device of each worker on this machine.

        Raises:
            SettingsError: a GPU is asked for that is not there.
        """
        import torch

        gpus = torch.cuda.device_count() if self.device != "cpu" else 0
        if self.device.startswith("cuda"):
            _, _, number = self.device.partition(":")
            if int(number or 0) >= gpus:
                raise SettingsError(f"device {self.device} is not there: torch sees {gpus} GPUs")
            places = [self.device] if number else [f"cuda:{index}" for index in range(gpus)]
        else:
            places = [f"cuda:{index}" for index in range(gpus)]
        if not places:
            return ["cpu"] * (self.workers or os.cpu_count() or 1)
        return [places[index % len(places)] for index in range(self.workers or len(places))]


def collect_settings(asked: CollectCommand, plan: Plan | None = None) -> CollectSettings:
    """What is collected, of the options of the command.

    Args:
        asked: the options.
        plan: takes the place of the plan and the configs that they name.

    Raises:
        GPTDynamicsError: the plan cannot be read, a config is unknown, or a setting does not fit.
    """
    # The folder may keep the task of a config.
    remember_kept_tasks(asked.output)
    ray = RaySettings(**asked.ray) if asked.executor == "ray" else None
    chosen, notes = _plan_of(asked) if plan is None else (plan, ())
    chosen = _with_kernels(chosen, asked)
    return CollectSettings(chosen, asked.output, asked.data, asked.workers, asked.device, ray, notes)


def _plan_of(asked: CollectCommand) -> tuple[Plan, tuple[str, ...]]:
    """The named plan; else one of the named configs, with the options and what bundled plans say of the rest.

    And a line about each config whose settings were fitted to its rows.
    """
    if asked.plan is not None:
        plan = read_plan(asked.plan)
        return plan.only(list(asked.configs)) if asked.configs else plan, ()
    runs = 32 if asked.runs is None else asked.runs
    fitted = [(config, *fit_settings(config, asked.run, asked.data)) for config in asked.configs]
    entries = [entry for config, settings, _ in fitted for entry in Plan.of(config, runs=runs, **settings)]
    return Plan("command line", tuple(entries)), tuple(note for *_, note in fitted if note is not None)


def _with_kernels(plan: Plan, asked: CollectCommand) -> Plan:
    """The plan with what is asked of kernels and counterfactual runs in the place of what it says itself."""
    entries = (
        replace(
            entry,
            counterfactuals=_counts(asked.counterfactuals) or entry.counterfactuals,
            kernels=entry.kernels if asked.kernels is None else asked.kernels,
            kernels_of=asked.kernels_of or entry.kernels_of,
            kernel=replace(entry.kernel, **asked.kernel),
        )
        for entry in plan
    )
    return Plan(plan.name, tuple(entries))


def _counts(words: tuple[str, ...]) -> dict[str, int]:
    """How often each run is repeated, of words `RUN=COUNT`."""
    counts = {}
    for word in words:
        run, _, count = word.partition("=")
        if not run or not count.isdecimal():
            raise SettingsError(f"--counterfactuals {word!r} is not of the form RUN=COUNT, such as 0004=24")
        counts[run] = int(count)
    return counts


@dataclass
class Collected:
    """What a collection did. Runs are named `<config>/<run>`.

    Attributes:
        done: runs made now.
        kernels: runs whose kernels were taken now.
        skipped: runs that were already there, or that another collector made meanwhile.
        failed: reasons of runs that diverged.
        cut: test and pool examples whose prompts were cut from the left to fit the context, by config.
        sampled, tied: tokens of texts that runs generated, and those of them that rounding could have made others.
        forward_passes: for each run made now, cost of one loss measurement in forward passes over the
            test set's non-padding tokens.
    """

    done: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    sampled: int = 0
    tied: int = 0
    forward_passes: list[float] = field(default_factory=list)


def missing_runs(out: Path, entry: PlanEntry) -> list[str]:
    """Names of the runs that a collection would make: those without files, diverged ones left as they are."""
    from gptdynamics.dataset.folder import DatasetFolder

    folder = DatasetFolder(out)
    there = {*folder.finished(entry.config), *folder.failed(entry.config)}
    return [run for run in entry.run_names if run not in there]


def missing_kernels(out: Path, entry: PlanEntry) -> list[str]:
    """Names of the runs whose kernels a collection would take; a finished one is made again for it."""
    from gptdynamics.dataset.folder import DatasetFolder

    folder = DatasetFolder(out)
    failed = folder.failed(entry.config)
    # Runs that record exact products need no projected ones.
    wanted = [run for run in entry.kernel_runs if run not in failed and not entry.settings.follows_gradients(run)]
    return [run for run in wanted if not folder.products_path(entry.config, run).exists()]
