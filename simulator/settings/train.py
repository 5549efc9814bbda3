"""Settings of `train`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from gptdynamics.errors import SettingsError
from gptdynamics.metrics import METRICS
from gptdynamics.options import CommandLine
from gptdynamics.ranges import COUNT, RATE, SEED, Range, check_fields
from simulator.settings.encoders import check_encoder
from simulator.settings.of_dataset import OfDataset

# Dynamics that are chosen by what the runs have.
AUTO = "auto"
# The names that `simulator.model.kinds` has, which loads slow libraries.
DYNAMICS = ("memory", "markov", "tangent")
# What `--help` says of every option that names a metric.
METRIC_NAMES = f"There are {', '.join(METRICS)}, and metrics of a task's own."
_RANGES = {
    "order": COUNT,
    "seed": SEED,
    "learning_rate": Range(above=True),
    "penalty": RATE,
    "hidden": COUNT,
}


@dataclass(frozen=True)
class RunsSettings(OfDataset):
    """Runs of a dataset, of one or several configs and metrics.

    Attributes:
        dataset: a dataset folder or a Hub id.
    """

    dataset: Annotated[str, CommandLine(positional=True)]
    config: Annotated[str | tuple[str, ...], CommandLine(commas=True)]
    metric: Annotated[str | tuple[str, ...], CommandLine(commas=True, note=METRIC_NAMES)] = "loss"

    @property
    def configs(self) -> tuple[str, ...]:
        """The configs, also if there is one."""
        return (self.config,) if isinstance(self.config, str) else tuple(self.config)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, also if there is one."""
        return (self.metric,) if isinstance(self.metric, str) else tuple(self.metric)


@dataclass(frozen=True)
class TrainSettings(RunsSettings):
    """What is trained, and how.

    Attributes:
        config: <task>_<size>, e.g. rte_nano; or several, which are trained together.
        metric: what to predict; or several: each config is trained on those that it has.
        dynamics: `tangent`, `memory`, `markov` (the paper), or `auto`: tangent where training runs have kernels, else
            memory.
        encoder: `gradient`, `sentence`, `causal_lm`, `label` or `index`. Markov of order 1 with `index` is Simfluence.
        order: previous values that a step of markov uses.
        projection: of markov: `linear` (eq. 7-8) or `mlp` (the published code). With `index` a table takes its place.
        preset: how markov is trained: `tuned`, `paper-finetune` (table 8), `paper-finetune-rows` (the same, all test
            examples at once) or `paper-instruct` (table 6).
        learning_rate: markov only: overrides the preset's learning rates.
        penalty: markov only: overrides the preset's weight decay.
        hidden: markov only: overrides the preset's width of the projections.
        objective: of markov: `one_step` (eq. 9), or `rollout`: whole trajectories, free-running.
        bands: also fit with runs left out, for intervals; for markov these are five more fits.
        seed: seed of weights and batches.
        encoder_model: of `sentence` and `causal_lm`: a folder or a Hub id. Default: MiniLM and the base model.
        pooling: of `sentence` and `causal_lm`: `mean`, `first` or (`causal_lm`) `last`. Default: the encoder's own.
        kind: of `index`: `linear`, or `additive` or `multiplicative` for only one kind of factors.
    """

    dynamics: str = "auto"
    encoder: str = "gradient"
    order: int = 1
    projection: Literal["linear", "mlp"] = "linear"
    seed: int = 42
    encoder_model: str | None = None
    pooling: str | None = None
    kind: str = "linear"
    preset: Literal["tuned", "paper-finetune", "paper-finetune-rows", "paper-instruct"] = "tuned"
    learning_rate: float | None = None
    penalty: float | None = None
    hidden: int | None = None
    objective: Literal["one_step", "rollout"] = "one_step"
    bands: bool = True

    @classmethod
    def check_options(cls, values: Mapping[str, Any]) -> None:
        """As of `OfDataset`; and dynamics and an encoder that there are."""
        super().check_options(values)
        # Who adds a kind of dynamics has loaded the slow libraries.
        dynamics = values.get("dynamics", AUTO)
        if dynamics not in (AUTO, *DYNAMICS) and "simulator.model.kinds" not in sys.modules:
            raise SettingsError(f"dynamics={dynamics!r} must be one of {', '.join((AUTO, *DYNAMICS))}")
        check_encoder(values.get("encoder", cls.encoder), values.get("encoder_model"), values.get("pooling"))

    def __post_init__(self) -> None:
        # These load the slow libraries, which `--help` must not wait for.
        from simulator.model.configuration_gptfluence import KINDS
        from simulator.model.kinds import kind_names
        from simulator.training.fitting import fitter_named, fitter_of

        check_fields(self, _RANGES)
        for name, known in (("dynamics", (AUTO, *kind_names())), ("kind", KINDS)):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        check_encoder(self.encoder, self.encoder_model, self.pooling)
        if self.kind != "linear" and self.encoder != "index":
            raise SettingsError(f"kind={self.kind!r} is one of Simfluence's: give encoder index")
        fitter = fitter_named("memory") if self.dynamics == AUTO else type(fitter_of(self))
        fitter.check_settings(self)
        for name, values in (("config", self.configs), ("metric", self.metrics)):
            if not values or len(set(values)) < len(values):
                raise SettingsError(f"{name}={values} must name at least one, and none twice")
        fitted = {"preset": "tuned", "objective": "one_step", "learning_rate": None, "penalty": None, "hidden": None}
        for name, default in fitted.items():
            if fitter.has_closed_form and getattr(self, name) != default:
                raise SettingsError(
                    f"{name}={getattr(self, name)!r} is of markov with vectors; memory and index have a closed form"
                )


@dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainSettings):
    """A training and where its simulator goes.

    Attributes:
        output: folder for the simulator.
        report_to: also report to these trackers, e.g. tensorboard; its files are in OUTPUT/logs.
    """

    output: Annotated[Path, CommandLine(aliases=("out",))]
    report_to: tuple[str, ...] = ()

    @property
    def training(self) -> TrainSettings:
        """What is trained, wherever it goes."""
        return TrainSettings(**{field.name: getattr(self, field.name) for field in fields(TrainSettings)})
