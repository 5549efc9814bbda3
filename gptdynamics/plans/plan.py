"""A plan: the configs of a release, the settings of their runs, and how many runs each has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from statistics import median_high
from typing import Any

from gptdynamics.configs import RunSettings, is_of_type, planned_names, run_name, split_of
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.parsing import parse_toml
from gptdynamics.ranges import RUNS, Range, check_fields
from gptdynamics.settings.kernels import KernelSettings

_FOLDER = Path(__file__).parent
PLANS = ("paper", "nano", "smollm2", "smollm2_gpu")

# The settings of training, without those of measurement.
_TRAINING = (
    "learning_rate batch_size epochs subset pool_size max_length base_model "
    "lora_rank lora_alpha lora_dropout weight_decay beta1 beta2 epsilon"
).split()


@dataclass(frozen=True)
class PlanEntry:
    """One config of a plan.

    Attributes:
        settings: of its runs.
        runs: runs 0000, 0001, ... on the pool.
        unseen_runs: runs u0000, u0001, ... on the next `pool_size` rows, which no other run trains on.
        counterfactuals: number of runs that repeat a run with pool rows left out, by the name of that run.
        kernels: compute the kernels of this many training runs, the first ones.
        kernels_of: also compute the kernels of these runs.
        kernel: how kernels are computed.
    """

    settings: RunSettings
    runs: int = 32
    unseen_runs: int = 0
    counterfactuals: Mapping[str, int] = field(default_factory=dict, hash=False)
    kernels: int = 0
    kernels_of: tuple[str, ...] = ()
    kernel: KernelSettings = field(default_factory=KernelSettings)

    def __post_init__(self) -> None:
        try:
            check_fields(self, {"runs": RUNS, "unseen_runs": Range(0, RUNS.most), "kernels": Range(0, RUNS.most)})
        except SettingsError as error:
            raise SettingsError(f"{self.config}: {error}") from error
        for base, count in self.counterfactuals.items():
            if base not in planned_names(self.runs):
                last = run_name(self.runs - 1)
                raise SettingsError(f"{self.config}: there is no run {base} to repeat. Name one of 0000 to {last}")
            if not 0 <= count <= RUNS.most:
                raise SettingsError(f"{self.config}: counterfactuals of {base}: {count} is not from 0 to {RUNS.most}")
        training = len(self._training_runs)
        if self.kernels > training:
            raise SettingsError(
                f"{self.config}: kernels={self.kernels}, but there are only {training} training runs. "
                "Collect more runs, or set fewer kernels"
            )
        names = self.run_names
        for name in self.kernels_of:
            if name not in names:
                raise SettingsError(
                    f"{self.config}: there is no run {name} to compute the kernel of. "
                    f"Its runs are {names[0]} to {names[-1]}"
                )

    @property
    def config(self) -> str:
        """Name of the config."""
        return self.settings.config

    @property
    def kernel_runs(self) -> list[str]:
        """Names of the runs whose kernels are computed, in order."""
        chosen = {*self._training_runs[: self.kernels], *self.kernels_of}
        return [name for name in self.run_names if name in chosen]

    @property
    def _training_runs(self) -> list[str]:
        return [name for name in self.run_names if split_of(name) == "train"]

    @property
    def run_names(self) -> list[str]:
        """Names of its runs, in order."""
        return planned_names(self.runs, self.unseen_runs, self.counterfactuals)


@dataclass(frozen=True)
class Plan:
    """The runs of a release, config by config.

    Attributes:
        name: of the plan.
        entries: its configs, each once.

    Example:
        >>> from gptdynamics import Plan
        >>> plan = Plan.of("rte_nano", "sst2_nano", runs=8, steps=24)
        >>> [(entry.config, entry.runs, entry.settings.run_steps) for entry in plan]
        [('rte_nano', 8, 24), ('sst2_nano', 8, 24)]
    """

    name: str
    entries: tuple[PlanEntry, ...]

    def __post_init__(self) -> None:
        configs = [entry.config for entry in self.entries]
        if not configs:
            raise SettingsError(f"plan {self.name} has no configs")
        twice = sorted({config for config in configs if configs.count(config) > 1})
        if twice:
            raise SettingsError(f"plan {self.name} has config {twice[0]} twice: its runs would share names")

    @classmethod
    def of(cls, *configs: str, name: str = "own", runs: int = 32, **settings: Any) -> Plan:
        """A plan of configs that have the same settings.

        Args:
            configs: `<task>_<size>` each.
            name: of the plan.
            runs: of each config.
            settings: fields of `RunSettings`; without `learning_rate`, the hyper-parameters of the bundled plan that
                has the config are used.

        Raises:
            SettingsError: a setting does not fit, or no bundled plan has the config.
        """
        entries = []
        for config in configs:
            bundled = {} if "learning_rate" in settings else usual_training(config)
            entries.append(PlanEntry(RunSettings(config=config, **(bundled | settings)), runs))
        return cls(name, tuple(entries))

    def __iter__(self) -> Iterator[PlanEntry]:
        return iter(self.entries)

    @property
    def runs(self) -> int:
        """Runs in all."""
        return sum(len(entry.run_names) for entry in self.entries)

    def only(self, configs: list[str]) -> Plan:
        """The plan with these configs only, in their order; raises SettingsError if one is not in the plan."""
        by_name = {entry.config: entry for entry in self.entries}
        for config in configs:
            if config not in by_name:
                raise SettingsError(f"plan {self.name} has no config {config!r}; it has: {', '.join(by_name)}")
        return Plan(self.name, tuple(by_name[config] for config in configs))

    def to_rows(self) -> list[dict[str, Any]]:
        """A flat row for each config: runs and every setting."""
        return [
            {"runs": entry.runs, "unseen_runs": entry.unseen_runs} | asdict(entry.settings) for entry in self.entries
        ]


def _entry(values: dict[str, Any], where: str) -> PlanEntry:
    counts = {name: values.pop(name) for name in ("runs", "unseen_runs", "kernels") if name in values}
    kernel_of, repeated = values.pop("kernels_of", []), values.pop("counterfactuals", {})
    kernel_fields = {f"kernel_{setting.name}": setting.name for setting in fields(KernelSettings)}
    kernel = {field: values.pop(name) for name, field in kernel_fields.items() if name in values}
    settings = {setting.name: setting for setting in fields(RunSettings)}
    config = values.get("config")
    if not isinstance(config, str):
        raise DataError(f'{where}: every [[config]] needs config = "<task>_<size>"')
    for name, value in values.items():
        if name not in settings:
            other_names = ["counterfactuals", "kernels", "kernels_of", *kernel_fields]
            expected = ", ".join(["runs", "unseen_runs", *settings, *other_names])
            raise DataError(f"{where}: {config} has an unknown setting {name!r}; known are {expected}")
        kind = str(settings[name].type)
        if not is_of_type(value, kind):
            raise DataError(f"{where}: {config}: {name} = {value!r} is not of type {kind}")
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(f"{where}: {config}: {name} = {value!r} is not a whole number")
    if "learning_rate" not in values:
        values |= {"learning_rate": usual_training(config)["learning_rate"]}
    if not isinstance(kernel_of, list) or not all(isinstance(name, str) for name in kernel_of):
        raise DataError(f'{where}: {config}: kernels_of = {kernel_of!r} is not a list of runs, such as ["0004"]')
    if not isinstance(repeated, dict) or not all(type(count) is int for count in repeated.values()):
        raise DataError(f'{where}: {config}: counterfactuals = {repeated!r} is not of the form {{ "0004" = 24 }}')
    return PlanEntry(
        RunSettings(**values),
        **counts,
        counterfactuals=repeated,
        kernels_of=tuple(kernel_of),
        kernel=KernelSettings(**kernel),
    )


def read_plan(source: str | Path) -> Plan:
    """Read a plan: `paper`, `nano`, `smollm2`, `smollm2_gpu`, or a TOML file.

    A plan file has a table `[defaults]` and a `[[config]]` for each config, with the names of `RunSettings` and
    `runs`, `unseen_runs`, `counterfactuals`, `kernels`, `kernels_of`, and those of `KernelSettings` after `kernel_`.

    Raises:
        DataError: the file is missing, is not TOML, or has unknown settings or values.
        SettingsError: a value is out of range, or a config occurs twice.
    """
    path = _FOLDER / f"{source}.toml" if source in PLANS else Path(source)
    try:
        content = parse_toml(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:  # ValueError: of paths that hold a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{path}: cannot be read ({reason}); a plan is a TOML file or one of {', '.join(PLANS)}"
        ) from error
    unknown = sorted(content.keys() - {"name", "defaults", "config"})
    if unknown:
        raise DataError(f"{path}: unknown {unknown[0]!r}; a plan has name, [defaults] and [[config]]")
    plan_name, defaults, entries = (
        content.get("name", path.stem),
        content.get("defaults", {}),
        content.get("config", []),
    )
    if not isinstance(plan_name, str):
        raise DataError(f"{path}: name = {plan_name!r} is not a text")
    tables = isinstance(entries, list) and all(isinstance(values, dict) for values in entries)
    if not isinstance(defaults, dict) or not tables:
        raise DataError(f"{path}: a plan has one table [defaults] and a [[config]] for each config")
    try:
        return Plan(plan_name, tuple(_entry(defaults | values, str(path)) for values in entries))
    except GPTDynamicsError as error:
        text = str(error)
        raise type(error)(text if text.startswith(str(path)) else f"{path}: {text}") from error


@cache
def _bundled() -> dict[str, dict[str, Any]]:
    """The training settings of the bundled plans, by config."""
    settings: dict[str, dict[str, Any]] = {}
    for name in PLANS:
        for row in read_plan(name).to_rows():
            settings.setdefault(row["config"], {key: row[key] for key in _TRAINING})
    return settings


def usual_training(config: str) -> dict[str, Any]:
    """The hyper-parameters that a bundled plan gives a config; raises SettingsError if none has it."""
    bundled = _bundled()
    if config not in bundled:
        raise SettingsError(f"no plan of this package has {config}: give --learning-rate")
    return dict(bundled[config])


def usual_rate(size: str) -> float | None:
    """The median learning rate of the configs of a size in the bundled plans; None if no plan has that size."""
    rates = [row["learning_rate"] for config, row in _bundled().items() if config.rpartition("_")[2] == size]
    return float(median_high(rates)) if rates else None
