"""The metrics: one object each, which holds everything that differs between metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gptdynamics.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np

Score = Callable[[str, Sequence[str]], float]

LATENTS = ("value", "log-odds")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")
# The other columns of trajectories: no metric may have one of these names.
RESERVED_NAMES = (*("run", "test_id", "task", "step", "generation_step", "gradient_step", "grad_dot", "update_dot"),)
# Configurations of simulators hold numbers up to this size.
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Metric:
    """A value measured for every test example, and how to read it.

    A metric of your own has a function that scores one generated text:
    `Metric("exact_match", lambda text, references: float(text in references), least=0, greatest=1)`.

    Attributes:
        name: name of its column in the dataset.
        score: function that computes the value from a text and its references; None: the package measures it.
        title: shown in reports and on axes; empty: the name.
        unit: shown after the title on axes; empty: the range, if it is bounded on both sides.
        least, greatest: the range of its values; infinite where there is no bound.
        higher_is_better: whether a greater value is a better one.
        latent: the scale on which simulators with memory add effects: `value`, or `log-odds`, which is
            log(exp(value) - 1), for a metric that is a negative log probability, such as the loss.
        needs_text: whether it is measured on sampled text, at the steps in `generation_step`; else at those in `step`.
        binary: whether `least` and `greatest` are its only values.
        tolerance: how far rounding may take a value beyond the range.

    Raises:
        SettingsError: a field does not fit; the message names it.
    """

    name: str
    score: Score | None = None
    title: str = ""
    unit: str = ""
    least: float = -math.inf
    greatest: float = math.inf
    higher_is_better: bool = True
    latent: Literal["value", "log-odds"] = "value"
    needs_text: bool = True
    binary: bool = False
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise SettingsError(
                f"metric name {self.name!r:.90} must begin with a letter and have letters, digits and _ only, "
                "at most 60"
            )
        if self.name.casefold() in RESERVED_NAMES:
            raise SettingsError(f"metric name {self.name!r} is that of another column. Give it another name")
        if self.score is not None and not callable(self.score):
            raise SettingsError(
                f"metric {self.name}: score={self.score!r:.60} must be a function of text and references"
            )
        for field in ("title", "unit"):
            text = getattr(self, field)
            if not isinstance(text, str) or not text.isprintable():
                raise SettingsError(f"metric {self.name}: {field}={text!r:.90} must be a text on one line")
        if not self.title:
            object.__setattr__(self, "title", self.name)
        for field in ("least", "greatest", "tolerance"):
            number = getattr(self, field)
            # NaN is the only number that differs from itself.
            if isinstance(number, bool) or not isinstance(number, int | float) or number != number:
                raise SettingsError(f"metric {self.name}: {field}={number!r:.60} must be a number")
            if abs(number) > _LARGEST and abs(number) != math.inf:
                raise SettingsError(f"metric {self.name}: {field} must be within {_LARGEST}, or infinite")
        if not self.least < self.greatest:
            raise SettingsError(f"metric {self.name}: least={self.least:g} must be below greatest={self.greatest:g}")
        if not 0 <= self.tolerance < math.inf:
            raise SettingsError(f"metric {self.name}: tolerance={self.tolerance:g} must be at least 0 and finite")
        for field in ("higher_is_better", "needs_text", "binary"):
            if not isinstance(getattr(self, field), bool):
                raise SettingsError(f"metric {self.name}: {field}={getattr(self, field)!r:.60} must be True or False")
        if self.latent not in LATENTS:
            raise SettingsError(f"metric {self.name}: latent={self.latent!r:.60} must be one of {', '.join(LATENTS)}")
        if self.latent == "log-odds" and (self.least, self.greatest) != (0, math.inf):
            raise SettingsError(f"metric {self.name}: latent='log-odds' needs least=0 and no greatest value")
        if self.binary and not self.bounded:
            raise SettingsError(f"metric {self.name}: binary=True needs the two values as least and greatest")

    @property
    def bounded(self) -> bool:
        """Whether its range has both ends."""
        return math.isfinite(self.least) and math.isfinite(self.greatest)

    @property
    def step_column(self) -> str:
        """The column that holds the steps at which it is measured."""
        return "generation_step" if self.needs_text else "step"

    @property
    def axis_title(self) -> str:
        """Title and unit, for an axis."""
        between = "or" if self.binary else "-"
        space = " " if self.binary else ""
        unit = self.unit or (f"{self.least:g}{space}{between}{space}{self.greatest:g}" if self.bounded else "")
        return f"{self.title} ({unit})" if unit else self.title

    @property
    def allowed(self) -> str:
        """Its range in words, for messages."""
        if self.bounded:
            return f"{self.least:g} {'or' if self.binary else 'to'} {self.greatest:g}"
        if math.isfinite(self.least):
            return f"{self.least:g} or more"
        return f"{self.greatest:g} or less" if math.isfinite(self.greatest) else "a finite number"

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Which finite values are outside its range: a boolean array of the shape of `values`.

        The ends of the range are rounded to the dtype of the values, so that storing a value never moves it outside.
        """
        import numpy as np

        low, high = values.dtype.type(self.least - self.tolerance), values.dtype.type(self.greatest + self.tolerance)
        with np.errstate(invalid="ignore"):
            outside = (values < low) | (values > high)
            if self.binary:
                outside |= (values != low) & (values != high)
        return np.asarray(outside & np.isfinite(values))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: everything but the function; null stands for an infinite end of the range."""
        values = {name: value for name, value in vars(self).items() if name != "score"}
        return values | {end: values[end] if math.isfinite(values[end]) else None for end in ("least", "greatest")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metric:
        """The metric of a result of `to_dict`.

        Raises:
            SettingsError: a value is unknown, missing or does not fit.
        """
        field_names = cls(name="metric").to_dict().keys()
        if mismatched := sorted(field_names ^ values.keys()):
            raise SettingsError(
                f"a metric {'lacks' if mismatched[0] in field_names else 'has an unknown'} {mismatched[0]}"
            )
        infinities = {"least": -math.inf, "greatest": math.inf}
        limits = {end: infinity if values[end] is None else values[end] for end, infinity in infinities.items()}
        return cls(**(dict(values) | limits))


LOSS = Metric("loss", unit="nats per token", least=0, higher_is_better=False, latent="log-odds", needs_text=False)
ACCURACY = Metric("accuracy", least=0, greatest=1, needs_text=False, binary=True)
# sacrebleu's best score exceeds 100 by the rounding of its exponential.
BLEU = Metric("bleu", title="BLEU", least=0, greatest=100, tolerance=1e-9)
ROUGE_L = Metric("rougeL", title="ROUGE-L", least=0, greatest=1)

METRICS: dict[str, Metric] = {metric.name: metric for metric in (LOSS, ACCURACY, BLEU, ROUGE_L)}
"""The metrics of the package, by name, in the order of their columns."""


def names_of(metrics: Iterable[Metric], needs_text: bool | None = None) -> tuple[str, ...]:
    """The names of metrics: of all, or only of those that need text, or of those that do not."""
    return tuple(metric.name for metric in metrics if needs_text in (None, metric.needs_text))


def resolve_metrics(listed: Iterable[str | Metric]) -> tuple[Metric, ...]:
    """The metrics that a task lists by name or as objects, each once; always with the loss, which comes first.

    Raises:
        SettingsError: the package has no metric of a listed name, or two different metrics have one name.
    """
    resolved = {LOSS.name: LOSS}
    for entry in listed:
        if not isinstance(entry, str | Metric):
            raise SettingsError(
                f"metric {entry!r:.60} must be one of {', '.join(METRICS)}, or a gptdynamics.metrics.Metric"
            )
        if isinstance(entry, str) and entry not in METRICS:
            raise SettingsError(f"metric {entry!r:.60} must be one of {', '.join(METRICS)}, or a Metric of your own")
        metric = METRICS[entry] if isinstance(entry, str) else entry
        namesake = {name.casefold(): existing for name, existing in (METRICS | resolved).items()}.get(
            metric.name.casefold()
        )
        if namesake is not None and namesake != metric:
            raise SettingsError(f"there is a metric {namesake.name!r} already. Give the other one another name")
        resolved[metric.name] = metric
    return tuple(resolved.values())
