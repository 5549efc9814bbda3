"""The table of an evaluation on a page: groups of rows that can be compared, the best of each column marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gptdynamics.errors import DataError
from simulator.reporting.colours import DASH_ARRAYS, dark_colour, method_colour, method_dash
from simulator.reporting.numbers import column_decimals, number_text

METHOD_NOTES: dict[str, str] = {
    "persistence": "the first value, unchanged",
    "mean_curve": "mean of the training runs",
    "mean_curve_shifted": "mean of the training runs, through the given values",
    "simfluence_additive": "a learned number added per training example",
    "simfluence_multiplicative": "a learned factor per training example",
    "simfluence_linear": "two learned numbers per training example, by ridge regression",
    "simfluence_linear_adamw": "the same, by the paper's training",
    "tracin_cp_10": "gradient products at ten checkpoints",
    "tracin_cp_all": "gradient products at every step",
    "grad_dot": "gradient products at the end of training",
    "update_dot": "products with the optimiser's real updates",
    "tracin_cp_published": "output layer only, tokens summed too early",
    "markov_1": "first-order recurrence on example vectors",
    "memory": "mean curve plus a fading memory of batches",
    "memory_label": "memory that sees labels only",
    "memory_sentence": "memory with sentence vectors",
    "memory_gradient": "memory with gradient vectors",
    "tangent": "gradients along a training run, filtered over time",
}
"""Method -> a few words on what it is."""

_BAND = 0.9


@dataclass(frozen=True)
class _Cell:
    """A number as it stands in the table; `text` None means undefined."""

    text: str | None
    spread: str | None = None
    best: bool = False


@dataclass(frozen=True)
class _Line:
    """A row of the table."""

    method: str
    note: str
    model: str | None
    colour: str
    dark: str
    dashes: str
    cells: tuple[_Cell, ...]


@dataclass(frozen=True)
class ScoreGroup:
    """The rows that can be compared with one another."""

    title: str
    lines: tuple[_Line, ...]


def score_groups(rows: Sequence[Mapping[str, object]]) -> list[ScoreGroup]:
    """Put rows of the same config, metric and split together, in the order of their first row."""
    together: dict[tuple[str, str, str], list[Mapping[str, object]]] = {}
    for row in rows:
        if not row.get("method"):
            raise DataError(f"an evaluation row names no method: {dict(row)!r}")
        key = (str(row.get("config", "")), str(row.get("metric", "")), str(row.get("split", "")))
        together.setdefault(key, []).append(row)
    return [_group(key, members) for key, members in together.items()]


def _group(key: tuple[str, str, str], rows: Sequence[Mapping[str, object]]) -> ScoreGroup:
    config, metric, split = key
    parts = [config, metric, f"split {split}" if split else ""]
    columns = [
        _column(rows, "skill", _with_decimals(3), _higher),
        _column(rows, "mse", _with_decimals(column_decimals(_numbers(rows, "mse"))), _lower, "mse_std"),
        _column(rows, "mae", _with_decimals(column_decimals(_numbers(rows, "mae"))), _lower, "mae_std"),
        _column(rows, "spearman", _with_decimals(3), _higher, "spearman_std"),
        _column(rows, "coverage", lambda share: number_text(100 * share, decimals=1) + "%", _nearest_to_band),
        _column(rows, "runs", _with_decimals(0), None),
        _column(rows, "examples", _with_decimals(0), None),
    ]
    lines = []
    for row, cells in zip(rows, zip(*columns, strict=True), strict=True):
        method = str(row["method"])
        model = row.get("model")
        lines.append(
            _Line(
                method=method,
                note=f"skipped: {row['note']}" if row.get("note") else METHOD_NOTES.get(method, ""),
                model=None if model is None else str(model),
                colour=method_colour(method),
                dark=dark_colour(method),
                dashes=DASH_ARRAYS[method_dash(method)],
                cells=cells,
            )
        )
    return ScoreGroup(title=" · ".join(part for part in parts if part), lines=tuple(lines))


def _with_decimals(decimals: int) -> Callable[[float], str]:
    return lambda value: number_text(value, decimals=decimals)


def _numbers(rows: Sequence[Mapping[str, object]], name: str) -> list[float | None]:
    return [_number(row, name) for row in rows]


def _lower(value: float) -> float:
    """Rank for columns where the lowest value is best."""
    return value


def _higher(value: float) -> float:
    """Rank for columns where the highest value is best."""
    return -value


def _nearest_to_band(value: float) -> float:
    """Rank for the coverage of a band: the value nearest to what the band promises is best."""
    return abs(value - _BAND)


def _column(
    rows: Sequence[Mapping[str, object]],
    name: str,
    text: Callable[[float], str],
    rank: Callable[[float], float] | None,
    spread: str | None = None,
) -> list[_Cell]:
    """Format one column; of two or more values the best is marked, with all that read the same."""
    values = _numbers(rows, name)
    defined = [value for value in values if value is not None]
    best = text(min(defined, key=rank)) if rank is not None and len(defined) > 1 else None
    if best is not None and all(text(value) == best for value in defined):
        best = None
    cells = []
    for row, value in zip(rows, values, strict=True):
        if value is None:
            cells.append(_Cell(text=None))
            continue
        std = _number(row, spread) if spread is not None else None
        cells.append(_Cell(text(value), spread=None if std is None else text(std), best=text(value) == best))
    return cells


def _number(row: Mapping[str, object], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"evaluation row of method {row['method']!r}, split {row.get('split')!r}: {name} is {value!r}, not a number"
        ) from error
    return number if math.isfinite(number) else None
