"""Settings of `experiment` and `quickstart`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from gptdynamics.errors import SettingsError
from gptdynamics.options import CommandLine

# The names that `simulator.experiments` has, which loads slow libraries.
EXPERIMENT_NAMES = (
    "counterfactuals",
    "number-of-runs",
    "loss-finetune",
    "loss-instruct",
    "metrics-finetune",
    "metrics-instruct",
    "unseen",
    "encoders",
    "markov-order",
    "checkpoint-interval",
    "model-size",
    "convergence",
    "cost",
    "published-tracin",
    "noise-floor",
    "trajectories",
)
ALL = "all"


@dataclass(frozen=True)
class ExperimentSettings:
    """Which experiments are repeated, and on what.

    Attributes:
        name: an experiment of the paper, or `all`; a wrong name lists them.
        dataset: a dataset folder or a Hub id.
        config: only this config, e.g. rte_nano; may be repeated. Default: all.
        exact: in `counterfactuals`, also compute exact first-order effects: minutes for each run that was made again,
            on a base model of nano's size.
        output: folder for a page, its picture and the numbers of each.
    """

    name: Annotated[str, CommandLine(positional=True)]
    dataset: Annotated[str, CommandLine(positional=True)]
    config: tuple[str, ...] = ()
    exact: bool = False
    output: Annotated[Path, CommandLine(aliases=("out",))] = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.name not in (*EXPERIMENT_NAMES, ALL):
            raise SettingsError(f"no experiment {self.name!r}; there are: {', '.join((*EXPERIMENT_NAMES, ALL))}")


@dataclass(frozen=True)
class QuickstartSettings:
    """Where a quickstart works.

    Attributes:
        output: folder for everything it makes.
    """

    output: Annotated[Path, CommandLine(aliases=("out",))] = Path("quickstart")
