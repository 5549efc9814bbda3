"""The settings of a collection, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gptdynamics.collection.own_data import fit_settings
from gptdynamics.errors import SettingsError
from gptdynamics.plans import Plan, PlanEntry, read_plan
from gptdynamics.ranges import COUNT, check_fields
from gptdynamics.runs.devices import check_device, worker_devices
from gptdynamics.settings.collect import CollectCommand, RaySettings
from gptdynamics.tasks.kept_tasks import remember_kept_tasks


@dataclass(frozen=True)
class CollectSettings:
    """The settings of one collection.

    Attributes:
        plan: the configs and how many runs of each; existing runs are skipped.
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
        check_device(self.device)
        if ":" in self.device and self.ray is not None:
            raise SettingsError(f"device={self.device!r}: a Ray cluster assigns GPUs itself: give cuda")

    def devices(self) -> list[str]:
        """The device of each worker on this machine.

        Raises:
            SettingsError: this machine does not have the GPU.
        """
        return worker_devices(self.device, self.workers)


def collect_settings(command: CollectCommand, plan: Plan | None = None) -> CollectSettings:
    """The settings of a collection from the options of the command.

    Args:
        command: the options.
        plan: replaces the plan and the configs that the options name.

    Raises:
        GPTDynamicsError: the plan cannot be read, a config is unknown, or a setting does not fit.
    """
    # The folder may have stored the task of a config.
    remember_kept_tasks(command.output)
    ray = RaySettings(**command.ray) if command.executor == "ray" else None
    chosen, notes = _plan_of(command) if plan is None else (plan, ())
    chosen = _with_kernels(chosen, command)
    return CollectSettings(chosen, command.output, command.data, command.workers, command.device, ray, notes)


def _plan_of(command: CollectCommand) -> tuple[Plan, tuple[str, ...]]:
    """The named plan, else a plan of the named configs with the given options and defaults of the bundled plans.

    Also a line about each config whose settings were fitted to its rows.
    """
    if command.plan is not None:
        plan = read_plan(command.plan)
        return plan.only(list(command.configs)) if command.configs else plan, ()
    runs = 32 if command.runs is None else command.runs
    fitted = [(config, *fit_settings(config, command.run, command.data)) for config in command.configs]
    entries = [entry for config, settings, _ in fitted for entry in Plan.of(config, runs=runs, **settings)]
    return Plan("command line", tuple(entries)), tuple(note for *_, note in fitted if note is not None)


def _with_kernels(plan: Plan, command: CollectCommand) -> Plan:
    """The plan with its kernels and counterfactual runs replaced by those of the options, if given."""
    entries = (
        replace(
            entry,
            counterfactuals=_counts(command.counterfactuals) or entry.counterfactuals,
            kernels=entry.kernels if command.kernels is None else command.kernels,
            kernels_of=command.kernels_of or entry.kernels_of,
            kernel=replace(entry.kernel, **command.kernel),
        )
        for entry in plan
    )
    return Plan(plan.name, tuple(entries))


def _counts(words: tuple[str, ...]) -> dict[str, int]:
    """The number of repetitions of each run, from words `RUN=COUNT`."""
    counts = {}
    for word in words:
        run, _, count = word.partition("=")
        if not run or not count.isdecimal():
            raise SettingsError(f"--counterfactuals {word!r} is not of the form RUN=COUNT, such as 0004=24")
        counts[run] = int(count)
    return counts


@dataclass
class Collected:
    """The result of a collection. Runs are named `<config>/<run>`.

    Attributes:
        done: runs made by it.
        kernels: runs whose kernels it computed.
        skipped: runs that existed already, or that another collector made meanwhile.
        failed: reasons of runs that diverged.
        cut: test and pool examples whose prompts were cut from the left to fit the context, by config.
        sampled, tied: number of sampled tokens, and of those that rounding errors could have changed.
        forward_passes: for each run made by it, the cost of one loss measurement in forward passes over the test set's
            non-padding tokens.
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
    """Names of the runs that a collection would make: those without files that have not diverged."""
    from gptdynamics.dataset.folder import DatasetFolder

    folder = DatasetFolder(out)
    existing = {*folder.finished(entry.config), *folder.failed(entry.config)}
    return [run for run in entry.run_names if run not in existing]


def missing_kernels(out: Path, entry: PlanEntry) -> list[str]:
    """Names of the runs whose kernels a collection would compute; finished ones are repeated for it."""
    from gptdynamics.dataset.folder import DatasetFolder

    folder = DatasetFolder(out)
    failed = folder.failed(entry.config)
    # Runs that record exact products need no projected ones.
    runs = [run for run in entry.kernel_runs if run not in failed and not entry.settings.follows_gradients(run)]
    return [run for run in runs if not folder.products_path(entry.config, run).exists()]
