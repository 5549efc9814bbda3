"""Settings of `evaluate` and `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gptdynamics.errors import SettingsError
from gptdynamics.options import CommandLine
from gptdynamics.ranges import Range, check_fields
from simulator.settings.of_dataset import OfDataset
from simulator.settings.train import METRIC_NAMES, RunsSettings

# The names that `simulator.baselines` has, which loads slow libraries.
BASELINE_NAMES = (
    "persistence",
    "mean_curve",
    "mean_curve_shifted",
    "simfluence_additive",
    "simfluence_multiplicative",
    "simfluence_linear",
    "simfluence_linear_adamw",
    "tracin_cp_10",
    "tracin_cp_all",
    "grad_dot",
    "update_dot",
    "tracin_cp_published",
)
# Each held-out run is trained again for these: they are compared only where they are named.
SLOW_BASELINES = ("tracin_cp_published",)


@dataclass(frozen=True)
class EvaluateSettings(RunsSettings):
    """What is scored, and on what.

    Attributes:
        config: <task>_<size>, e.g. rte_nano; or several, each scored separately.
        metric: what is predicted; or several, each scored separately.
        models: simulators to score, folders or Hub ids. Default: those that the data allow are trained here.
        baselines: methods to compare with. Default: all but `tracin_cp_published`, which is slow.
        split: `test`, or `test_unseen`: runs on pool rows that no training run used.
        unseen_tests: keep this share of the test examples from training, and score only those.
    """

    models: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    split: Literal["test", "test_unseen"] = "test"
    unseen_tests: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, {"unseen_tests": Range(0, 1, below=True)})
        unknown = [name for name in self.baselines if name not in BASELINE_NAMES]
        if unknown:
            raise SettingsError(f"no baseline {unknown[0]!r}; there are: {', '.join(BASELINE_NAMES)}")

    @property
    def part(self) -> tuple[str, str]:
        """The config and the metric, if there is one of each.

        Raises:
            SettingsError: there are several.
        """
        if len(self.configs) * len(self.metrics) != 1:
            raise SettingsError(f"config={self.configs}, metric={self.metrics}: one of each is scored at a time")
        return self.configs[0], self.metrics[0]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the baselines to compare with."""
        return self.baselines or tuple(name for name in BASELINE_NAMES if name not in SLOW_BASELINES)


@dataclass(frozen=True)
class ReportSettings(OfDataset):
    """What a page shows.

    Attributes:
        dataset: a dataset folder or a Hub id.
        output: the HTML page.
        config: <task>_<size>, e.g. rte_nano. With --interactive the default is those of the models.
        metric: what is shown.
        models: simulators to show, folders or Hub ids. Default: those that the data allow are trained here.
        figure: also draw a few trajectories here (.svg or .png).
        interactive: a page that simulates changed runs itself: the explorer.
        no_texts: with --interactive: leave out prompts and targets, but for labels.
    """

    dataset: Annotated[str, CommandLine(positional=True)]
    output: Annotated[Path, CommandLine(aliases=("out",), writes=True)]
    config: str | None = None
    metric: Annotated[str, CommandLine(note=METRIC_NAMES)] = "loss"
    models: tuple[str, ...] = ()
    figure: Annotated[Path | None, CommandLine(writes=True)] = None
    interactive: bool = False
    no_texts: bool = False

    def __post_init__(self) -> None:
        check_fields(self, {})
        if self.interactive and self.figure is not None:
            raise SettingsError("--figure is of the report without --interactive")
        if self.interactive and self.config is None and not self.models:
            raise SettingsError("give --models, or --config to train simulators of it here")
        if not self.interactive and self.no_texts:
            raise SettingsError("--no-texts needs --interactive")
        if not self.interactive and self.config is None:
            raise SettingsError("give --config, e.g. --config rte_nano")
