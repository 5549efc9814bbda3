"""What one training is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from gptdynamics.errors import SettingsError
from gptdynamics.ranges import COUNT, RATE, SEED, Range, check_fields
from simulator.configuration_gptfluence import KINDS
from simulator.encoders import check_encoder
from simulator.training.markov_fit import OBJECTIVES
from simulator.training.presets import PRESETS

DYNAMICS = ("memory", "markov")
PROJECTIONS = ("linear", "mlp")


_RANGES = {
    "order": COUNT,
    "seed": SEED,
    "learning_rate": Range(above=True),
    "penalty": RATE,
    "hidden": COUNT,
}


@dataclass(frozen=True)
class TrainSettings:
    """What one `train` does.

    Attributes:
        dataset: folder or Hub id.
        config: `<task>_<size>`, or several, to be trained together.
        metric: what to predict, or several; each config is trained on those that it has.
        dynamics: `memory` or `markov`.
        encoder: one of `simulator.encoders.ENCODERS`; with `index`, markov of order 1 is Simfluence.
        order: n of markov.
        projection: of markov: `linear` or `mlp`; `index` vectors have a table in its place.
        seed: of weights and batches.
        encoder_model: of `sentence` and `causal_lm` encoders, see `make_encoder`; None: MiniLM and the base model.
        pooling: of the same: `mean`, `first` or (`causal_lm`) `last`; None: the encoder's own.
        kind: of `index`: `linear`, or `additive` or `multiplicative` for one kind of factors only.
        preset: how markov is trained: one of `PRESETS`.
        learning_rate, penalty, hidden: of markov, in the place of those that the preset tries; see `MarkovChoice`.
        objective: what markov is trained to predict: `one_step` (eq. 9) or `rollout`, whole trajectories.
        bands: whether runs are left out, too, for bands; of markov, five more fits.
    """

    dataset: str
    config: str | tuple[str, ...]
    metric: str | tuple[str, ...] = "loss"
    dynamics: str = "memory"
    encoder: str = "gradient"
    order: int = 1
    projection: str = "linear"
    seed: int = 42
    encoder_model: str | None = None
    pooling: str | None = None
    kind: str = "linear"
    preset: str = "tuned"
    learning_rate: float | None = None
    penalty: float | None = None
    hidden: int | None = None
    objective: str = "one_step"
    bands: bool = True

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        for name, known in (
            ("dynamics", DYNAMICS),
            ("projection", PROJECTIONS),
            ("kind", KINDS),
            ("preset", PRESETS),
            ("objective", OBJECTIVES),
        ):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        check_encoder(self.encoder, self.encoder_model, self.pooling)
        if self.kind != "linear" and self.encoder != "index":
            raise SettingsError(f"kind={self.kind!r} is one of Simfluence's: give encoder index")
        if self.dynamics == "memory" and self.encoder == "index":
            raise SettingsError(
                "memory needs vectors that say which examples are alike; index is for --dynamics markov"
            )
        for name, values in (("config", self.configs), ("metric", self.metrics)):
            if not values or len(set(values)) < len(values):
                raise SettingsError(f"{name}={values} must name at least one, and none twice")
        closed = self.dynamics == "memory" or self.encoder == "index"
        fitted = {"preset": "tuned", "objective": "one_step", "learning_rate": None, "penalty": None, "hidden": None}
        for name, default in fitted.items():
            if closed and getattr(self, name) != default:
                raise SettingsError(
                    f"{name}={getattr(self, name)!r} is of markov with vectors; memory and index have a closed form"
                )
        if self.dynamics == "memory" and self.order != 1:
            raise SettingsError(f"order={self.order} is of markov; memory is given one value")

    @property
    def configs(self) -> tuple[str, ...]:
        """The configs, also if there is one."""
        return (self.config,) if isinstance(self.config, str) else tuple(self.config)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, also if there is one."""
        return (self.metric,) if isinstance(self.metric, str) else tuple(self.metric)
