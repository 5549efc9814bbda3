"""Configuration of a GPTfluence simulator."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PretrainedConfig

from .dynamics import Field
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

# What every configuration has, whatever the kind of dynamics.
_COMMON: dict[str, Field] = {
    "dynamics": Field("text", default="markov"),
    "metric": Field("text", default="loss"),
    **dict.fromkeys(("latent", "direction"), Field("text")),
    **dict.fromkeys(("least", "greatest"), Field("number", -(2**31))),
    **dict.fromkeys(("dataset_config", "base_model", "base_revision", "token_rule"), Field("text", default="")),
    "encoder": Field("object", default={}),
    **dict.fromkeys(("encoder_width", "steps", "stride"), Field("whole number", 1, 1)),
    "batch_size": Field("whole number", 1, 4),
    **dict.fromkeys(("first_step", "calibration_runs"), Field("whole number", 0, 0)),
    **dict.fromkeys(("pool_ids", "test_ids"), Field("list of whole numbers", default=[])),
    **dict.fromkeys(("pool_keys", "test_keys"), Field("list of texts", default=[])),
    "learning_rate": Field("list of numbers", default=[]),
    "removed": Field("number", -(2**31)),
    **dict.fromkeys(("most_visits", "fewest_rows"), Field("whole number", 0, 0)),
    "never_visited": Field("list of whole numbers", default=[]),
    "parts": Field("list of objects", default=[]),
}
FIELDS = _COMMON | {name: field for kind in DYNAMICS for name, field in kind.fields.items()}
# What all parts of a simulator of several configs or metrics have in common.
SHARED = ("dynamics", "encoder", "encoder_width", "order", "projection", "kind", "hidden")
# What each part has of its own.
PART = (
    *(name for name in _COMMON if name not in SHARED and name != "parts"),
    *(name for kind in DYNAMICS if not kind.shares_weights for name in kind.fields if name not in SHARED),
)
MOST = 2**31 - 1
ONE = {"texts": "text", "whole numbers": "whole number", "numbers": "number", "objects": "object"}


def _field(name: str) -> Field:
    """A field; kinds of dynamics may have been added after this module was loaded."""
    return FIELDS.get(name) or next(kind.fields[name] for kind in DYNAMICS if name in kind.fields)


def part_fields(dynamics: str) -> tuple[str, ...]:
    """The fields that each part has of its own."""
    own = kind_named(dynamics).fields
    return (*PART, *(name for name in own if name not in PART and name not in SHARED))


def check_fields(values: Mapping[str, Any]) -> None:
    """Raise ValueError, with the name of the field, where a value is of another type than its field or out of range.

    A field that has no default, or a list or an object, may be null.
    """
    for name, value in values.items():
        kind, least, default = _field(name)
        if value is None and (default is None or isinstance(default, list | dict)):
            continue
        each = kind.removeprefix("list of ")
        fits = fits_kind(value, kind, least) if each == kind else isinstance(value, list | tuple)
        if fits and each != kind:
            fits = all(fits_kind(item, ONE[each], least) for item in value)
        if not fits:
            text = repr(value)
            article = "an" if kind == "object" else "a"
            bound = f" of at least {least:g}" if "number" in kind and least > 0 else ""
            raise ValueError(f"{name}={text if len(text) < 80 else text[:60] + '...'} must be {article} {kind}{bound}")


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
    """Shapes and provenance of a simulator; all fields are keyword arguments with defaults (`FIELDS`).

    A simulator of several configs or metrics has a part for each pair of them that it was trained on. An entry of
    `parts` holds that part's own fields (`PART`). Then `pool_keys` and `test_keys` are those of all parts, and the
    other fields of `PART` have their defaults.

    Args:
        dynamics: `markov` (the paper, eq. 4-8) or `memory`.
        metric: what is predicted.
        latent: what effects are added to: `value` or `log-odds`, see `Scale`; None: as the metric's name says, for
            models of earlier versions.
        least, greatest: the metric's range; None: no bound, where `latent` is given.
        direction: which values of the metric are better, `higher` or `lower`; None: what its name says.
        dataset_config: `<task>_<size>` of the runs it was trained on.
        base_model, base_revision: what those runs started from.
        token_rule: what tells their way of making tokens of texts from others; empty: not known.
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
        decays, fade_rates, momenta, curvatures: time constants of `memory`: rho, kappa times the tau of a whole run, b,
            and lambda times that tau.
        ridge: relative penalty that the responses of `memory` were fitted with; None: not recorded.
        calibration_runs: runs left out whose residuals bands are made of; 0: no bands.
        removed: share of the mean curve's squared error that is removed on runs left out; None: not known.
        most_visits, fewest_rows: of the runs trained on, how often one visits a pool example at most, and how many of
            them it visits at least; 0: not recorded.
        never_visited: ids of pool examples that none of these runs visits.
        parts: settings of each part of a simulator of several; empty: it is of one config and metric.
    """

    model_type = "gptfluence"

    def __init__(self, **values: Any) -> None:
        # The digest is of the saved files, not of the configuration.
        values.pop("digest", None)
        dynamics = values.get("dynamics", FIELDS["dynamics"].default)
        check_fields({name: value for name, value in values.items() if name in FIELDS})
        own = kind_named(dynamics).fields
        for name, field in (FIELDS | own).items():
            if values.get(name) is None:
                values[name] = copy.deepcopy(field.default)
        check_fields({name: values[name] for name in own})
        for part in values["parts"]:
            check_part(part, dynamics)
        for name, choices in (("projection", PROJECTIONS), ("kind", KINDS)):
            if values[name] not in choices:
                raise ValueError(f"{name}={values[name]!r} must be one of {', '.join(choices)}")
        check_metric(values)
        for name in ("pool", "test"):
            ids, keys = values[f"{name}_ids"], values[f"{name}_keys"]
            if not values["parts"] and ids and len(ids) != len(keys):
                raise ValueError(f"{name}_ids has {len(ids)} entries and {name}_keys {len(keys)}")
        for name in FIELDS | own:
            setattr(self, name, values.pop(name))
        super().__init__(**values)

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
        groups = ", ".join(f"{metric} of {config}" for config, metric in self.groups)
        if not fit:
            requested = f"{metric or 'any metric'} of {config or 'any config'}"
            raise ValueError(f"the model knows nothing of {requested}; it was trained on: {groups}")
        if len(fit) > 1:
            raise ValueError(f"the model has several parts; give config and metric of one: {groups}")
        return fit[0]
