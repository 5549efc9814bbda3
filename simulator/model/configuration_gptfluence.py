"""Configuration of a GPTfluence simulator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PretrainedConfig

from .kinds import DYNAMICS, kind_named

# Least and greatest value of metrics, for models saved before their configuration said it.
METRIC_RANGES = {
    "loss": (0.0, None),
    "accuracy": (0.0, 1.0),
    "bleu": (0.0, 100.0),
    "rougeL": (0.0, 1.0),
}
LATENTS = ("value", "log-odds")
DIRECTIONS = ("higher", "lower")


class Scale(NamedTuple):
    """How a metric's values are bounded, and what effects are added to.

    Attributes:
        latent: `value`, or `log-odds`: log(exp(value) - 1), of a negative log probability.
        least, greatest: the range; infinite where there is no bound.
    """

    latent: str
    least: float
    greatest: float

    def fields(self) -> dict[str, Any]:
        """The fields of a configuration that say this."""
        ends = {"least": self.least, "greatest": self.greatest}
        return {"latent": self.latent} | {name: end if math.isfinite(end) else None for name, end in ends.items()}


def scale_of(metric: str) -> Scale:
    """The scale of a metric of the package, by its name."""
    least, greatest = METRIC_RANGES[metric]
    latent = "log-odds" if metric == "loss" else "value"
    return Scale(latent, least, math.inf if greatest is None else greatest)


PROJECTIONS = ("linear", "mlp", "table")
KINDS = ("linear", "additive", "multiplicative")


# What all parts of a simulator of several configs or metrics have in common.
SHARED = ("dynamics", "encoder", "encoder_width", "order", "projection", "kind", "hidden")
# What each has of its own.
PART = (
    "metric",
    "latent",
    "least",
    "greatest",
    "direction",
    "dataset_config",
    "base_model",
    "base_revision",
    "pool_ids",
    "pool_keys",
    "test_ids",
    "test_keys",
    "steps",
    "batch_size",
    "learning_rate",
    "stride",
    "first_step",
    *(name for kind in DYNAMICS if not kind.shares_weights for name in kind.fields if name not in SHARED),
    "calibration_runs",
)

# What a field may hold: a kind of value, and of numbers the least.
FIELDS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("latent", "direction"), ("text", 0)),
    **dict.fromkeys(("least", "greatest"), ("number", -(2**31))),
    **dict.fromkeys(("dynamics", "metric", "dataset_config", "base_model", "base_revision"), ("text", 0)),
    "encoder": ("object", 0),
    **dict.fromkeys(("encoder_width", "steps", "batch_size", "stride"), ("whole number", 1)),
    **dict.fromkeys(("first_step", "calibration_runs"), ("whole number", 0)),
    **dict.fromkeys(("pool_ids", "test_ids"), ("list of whole numbers", 0)),
    **dict.fromkeys(("pool_keys", "test_keys"), ("list of texts", 0)),
    "learning_rate": ("list of numbers", 0),
    "parts": ("list of objects", 0),
    **{name: field[:2] for kind in DYNAMICS for name, field in kind.fields.items()},
}
# Those that may be null.
OPTIONAL = (
    "latent least greatest direction encoder pool_ids pool_keys test_ids test_keys learning_rate decays fadings "
    "momenta forgettings ridge parts"
)
MOST = 2**31 - 1
ONE = {"texts": "text", "whole numbers": "whole number", "numbers": "number", "objects": "object"}


def _field(name: str) -> tuple[str, float]:
    """What a field may hold; kinds of dynamics may have been added after this module was loaded."""
    if name in FIELDS:
        return FIELDS[name]
    what, least, _ = next(kind.fields[name] for kind in DYNAMICS if name in kind.fields)
    return what, least


def part_fields(dynamics: str) -> tuple[str, ...]:
    """The fields that each part has of its own."""
    own = kind_named(dynamics).fields
    return (*PART, *(name for name in own if name not in PART and name not in SHARED))


def check_fields(values: Mapping[str, Any]) -> None:
    """Raise ValueError, with the name of the field, where a value is of another kind than its field or out of range."""
    for name, value in values.items():
        kind, least = _field(name)
        if value is None and (name in OPTIONAL.split() or name not in FIELDS):
            continue
        each = kind.removeprefix("list of ")
        fits = fits_kind(value, kind, least) if each == kind else isinstance(value, list | tuple)
        if fits and each != kind:
            fits = all(fits_kind(item, ONE[each], least) for item in value)
        if not fits:
            said = repr(value)
            article = "an" if kind == "object" else "a"
            bound = f" of at least {least:g}" if "number" in kind and least > 0 else ""
            raise ValueError(f"{name}={said if len(said) < 80 else said[:60] + '...'} must be {article} {kind}{bound}")


def fits_kind(value: Any, kind: str, least: float) -> bool:
    """Whether a value is a text, an object, or a number that is neither too small nor too large."""
    if kind in ("text", "object"):
        return isinstance(value, str if kind == "text" else dict)
    number = type(value) is int or (kind == "number" and isinstance(value, float))
    return number and least <= value <= MOST


def check_part(values: Mapping[str, Any], dynamics: str) -> None:
    """Raise ValueError where an entry of `parts` lacks a field, or has one of the wrong kind."""
    lacking = [name for name in ("dataset_config", "metric", "pool_keys", "test_keys") if values.get(name) is None]
    unknown = sorted(values.keys() - set(part_fields(dynamics)))
    if lacking or unknown:
        raise ValueError(f"an entry of parts {'lacks ' + lacking[0] if lacking else 'has an unknown ' + unknown[0]}")
    check_fields(values)
    check_metric(values)


def check_metric(values: Mapping[str, Any]) -> None:
    """Raise ValueError where fields do not say what a metric's range and latent are."""
    metric, latent, direction = values["metric"], values.get("latent"), values.get("direction")
    if latent is None:
        if metric not in METRIC_RANGES:
            names = ", ".join(METRIC_RANGES)
            raise ValueError(f"metric={metric!r} must be one of {names}, or latent must say what it is predicted in")
        return
    least, greatest = values.get("least"), values.get("greatest")
    for name, value, choices in (("latent", latent, LATENTS), ("direction", direction, DIRECTIONS)):
        if value not in choices and (name, value) != ("direction", None):
            raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")
    if least is not None and greatest is not None and least >= greatest:
        raise ValueError(f"least={least!r} must be below greatest={greatest!r}")


class GPTfluenceConfig(PretrainedConfig):
    """Shapes and provenance of a simulator.

    A simulator of several configs or metrics has a part for each pair of them that it was trained on. An entry of
    `parts` holds what is that part's own (`PART`). Then `pool_keys` and `test_keys` are those of all parts, and
    everything else of `PART` has its default.

    Args:
        dynamics: `markov` (the paper, eq. 4-8) or `memory`.
        metric: what is predicted.
        latent: what effects are added to: `value` or `log-odds`, see `Scale`; None: what the metric's name says, as of
            models saved before.
        least, greatest: the metric's range; None: no bound, where `latent` is given.
        direction: which values of the metric are better, `higher` or `lower`; None: what its name says.
        dataset_config: `<task>_<size>` of the runs it was trained on.
        base_model, base_revision: what those runs started from.
        encoder: what its encoder says of itself (`Encoder.describe`).
        encoder_width: numbers in an encoder vector.
        pool_ids, pool_keys: ids and content keys of the pool examples whose vectors are stored.
        test_ids, test_keys: the same for the test examples.
        steps: updates of the runs trained on.
        batch_size: examples in an update.
        learning_rate: rate of each update of the runs trained on.
        stride: updates between two measurements of the metric; one step of markov spans them.
        first_step: step of the first measurement: 0, or 1 in runs that were not measured before the first update.
        order: n, previous values that a markov step looks at.
        projection: `linear` (eq. 7-8), `mlp` (two layers shared by train and test side), or `table`: of `index`
            vectors, a number for each pair of a pool and a test example (Simfluence).
        kind: of a table: `linear`, or `additive` (B only, alpha_1 = 1) or `multiplicative` (A only, beta = 0).
        hidden: width of the projections.
        components, test_components, curve_components: sizes of `memory`.
        decays, fadings, momenta, forgettings: time constants of `memory`: rho, kappa times the tau of a whole run, b,
            and lambda times that tau.
        ridge: relative penalty that the responses of `memory` were fitted with; None: not recorded.
        calibration_runs: runs left out whose residuals bands are made of; 0: no bands.
        parts: settings of each part of a simulator of several; empty: it is of one config and metric.
    """

    model_type = "gptfluence"

    def __init__(
        self,
        dynamics: str = "markov",
        metric: str = "loss",
        latent: str | None = None,
        least: float | None = None,
        greatest: float | None = None,
        direction: str | None = None,
        dataset_config: str = "",
        base_model: str = "",
        base_revision: str = "",
        encoder: dict[str, Any] | None = None,
        encoder_width: int = 1,
        pool_ids: list[int] | None = None,
        pool_keys: list[str] | None = None,
        test_ids: list[int] | None = None,
        test_keys: list[str] | None = None,
        steps: int = 1,
        batch_size: int = 4,
        learning_rate: list[float] | None = None,
        stride: int = 1,
        first_step: int = 0,
        order: int = 1,
        projection: str = "linear",
        kind: str = "linear",
        hidden: int = 64,
        components: int = 1,
        test_components: int = 1,
        curve_components: int = 1,
        decays: list[float] | None = None,
        fadings: list[float] | None = None,
        momenta: list[float] | None = None,
        forgettings: list[float] | None = None,
        ridge: float | None = None,
        calibration_runs: int = 0,
        parts: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        # It is of the saved files, not of what is made of them.
        kwargs.pop("digest", None)
        given = {name: value for name, value in locals().items() if name in FIELDS}
        check_fields(given)
        own = kind_named(dynamics).fields
        for each in parts or []:
            check_part(each, dynamics)
        for name, field in own.items():
            if name not in given:
                check_fields({name: kwargs.setdefault(name, field.default)})
        for name, value, known in (("projection", projection, PROJECTIONS), ("kind", kind, KINDS)):
            if value not in known:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
        check_metric(given)
        for name in ("pool", "test"):
            ids, keys = given[f"{name}_ids"] or [], given[f"{name}_keys"] or []
            if not parts and ids and len(ids) != len(keys):
                raise ValueError(f"{name}_ids has {len(ids)} entries and {name}_keys {len(keys)}")
        self.dynamics = dynamics
        self.metric = metric
        self.latent = latent
        self.least = least
        self.greatest = greatest
        self.direction = direction
        self.dataset_config = dataset_config
        self.base_model = base_model
        self.base_revision = base_revision
        self.encoder = encoder or {}
        self.encoder_width = encoder_width
        self.pool_ids = pool_ids or []
        self.pool_keys = pool_keys or []
        self.test_ids = test_ids or []
        self.test_keys = test_keys or []
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate or []
        self.stride = stride
        self.first_step = first_step
        self.order = order
        self.projection = projection
        self.kind = kind
        self.hidden = hidden
        self.components = components
        self.test_components = test_components
        self.curve_components = curve_components
        self.decays = [1.0] if decays is None else decays
        self.fadings = [0.0] if fadings is None else fadings
        self.momenta = momenta or []
        self.forgettings = forgettings or []
        self.ridge = ridge
        self.calibration_runs = calibration_runs
        self.parts = parts or []
        super().__init__(**kwargs)

    @classmethod
    def of_parts(cls, parts: Sequence[GPTfluenceConfig]) -> GPTfluenceConfig:
        """One configuration for several of one config and metric each, which agree in all of `SHARED`; of one, itself.

        Raises:
            ValueError: they do not agree, or two are of the same config and metric.
        """
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        for part in parts[1:]:
            for name in SHARED:
                mine, theirs = getattr(first, name), getattr(part, name)
                if mine != theirs:
                    raise ValueError(
                        f"{first.dataset_config} and {part.dataset_config} cannot share one model: {name} is {mine} of "
                        f"the one and {theirs} of the other"
                    )
        groups = [(part.dataset_config, part.metric) for part in parts]
        if len(set(groups)) < len(groups):
            raise ValueError(f"a config and a metric are there twice: {groups}")
        return cls(
            **{name: getattr(first, name) for name in SHARED},
            pool_keys=list(dict.fromkeys(key for part in parts for key in part.pool_keys)),
            test_keys=list(dict.fromkeys(key for part in parts for key in part.test_keys)),
            parts=[{name: getattr(part, name) for name in part_fields(first.dynamics)} for part in parts],
        )

    @property
    def scale(self) -> Scale:
        """The range of the metric, and what effects are added to."""
        if self.latent is None:
            return scale_of(self.metric)
        return Scale(
            self.latent,
            -math.inf if self.least is None else self.least,
            math.inf if self.greatest is None else self.greatest,
        )

    @property
    def higher_is_better(self) -> bool:
        """Of the metric."""
        return self.metric != "loss" if self.direction is None else self.direction == "higher"

    @property
    def groups(self) -> list[tuple[str, str]]:
        """The configs and metrics it knows, as pairs."""
        if not self.parts:
            return [(self.dataset_config, self.metric)]
        return [(part["dataset_config"], part["metric"]) for part in self.parts]

    @property
    def heads(self) -> list[str]:
        """The metrics that it knows, in the order of their factors: configs share those of a metric."""
        return list(dict.fromkeys(metric for _, metric in self.groups))

    def part(self, place: int) -> GPTfluenceConfig:
        """The configuration of one part on its own."""
        if not self.parts:
            return self
        return GPTfluenceConfig(**{name: getattr(self, name) for name in SHARED}, **self.parts[place])

    def place(self, config: str | None = None, metric: str | None = None) -> int:
        """Which part is of a config and a metric; either may be left out where there is one that fits.

        Raises:
            ValueError: none fits, or several do; the message says which there are.
        """
        fit = [
            place
            for place, group in enumerate(self.groups)
            if config in (None, group[0]) and metric in (None, group[1])
        ]
        known = ", ".join(f"{metric} of {config}" for config, metric in self.groups)
        if not fit:
            wanted = f"{metric or 'any metric'} of {config or 'any config'}"
            raise ValueError(f"the model knows nothing of {wanted}; it was trained on: {known}")
        if len(fit) > 1:
            raise ValueError(f"the model has several parts; give config and metric of one: {known}")
        return fit[0]
