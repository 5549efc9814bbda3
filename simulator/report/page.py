"""Writes the report: one HTML page that holds its data, its styles and plotly.js, and loads nothing.

Everything that comes from a dataset is either escaped by the template or stands in one JSON block, from
where the page's script puts it in as text, never as markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptdynamics.errors import DataError
from gptdynamics.outputs import write_output_text
from simulator.report.colours import DASH_ARRAYS, method_colour, method_dash
from simulator.report.drawn import drawn_at_first
from simulator.report.self_contained import render_page

AXIS_TITLES: dict[str, str] = {
    "loss": "loss (nats per token)",
    "bleu": "BLEU (0-100)",
    "rougeL": "ROUGE-L (0-1)",
    "accuracy": "accuracy (0 or 1)",
}
"""Metric -> title of the vertical axis, with the unit."""

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
}
"""Method -> a few words on what it is."""

_PANELS = 6
_BAND = 0.9
_DIGITS = 5


@dataclass(frozen=True)
class Curve:
    """One test example of one held-out run: what was measured and what each method predicted.

    Attributes:
        run: name of the run.
        test_id: id of the test example within its task.
        task: name of the task.
        prompt: text before the target; None where the dataset has no texts.
        target: text that the metric is measured on; None where the dataset has no texts.
        step: training steps, T+1 of them with step 0.
        truth: measured value at each of the steps.
        predicted: method name -> predicted value at each of the steps, in the order to list them in.
    """

    run: str
    test_id: int
    task: str
    prompt: str | None
    target: str | None
    step: Sequence[int]
    truth: Sequence[float]
    predicted: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class _Cell:
    """A figure as it stands in the table; `text` None means undefined."""

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
    dashes: str
    cells: tuple[_Cell, ...]


@dataclass(frozen=True)
class _Group:
    """The rows that can be compared with one another."""

    title: str
    lines: tuple[_Line, ...]


def write_report(
    path: Path,
    *,
    config: str,
    metric: str,
    rows: Sequence[Mapping[str, object]],
    curves: Sequence[Curve],
    facts: Mapping[str, str],
) -> None:
    """Write the report page, whole or not at all.

    Arguments:
        path: HTML file to write; its folder is made if needed, an existing file is replaced.
        config: dataset configuration, for the title.
        metric: metric of the curves, for the title and the axis.
        rows: evaluation rows; a figure that is missing, None or not finite is shown as undefined.
        curves: trajectories to show, in the order to list them in. All of them go into the page. Values that
            are not finite become gaps.
        facts: label -> value lines shown under the title.

    Raises:
        DataError: no curves, a trajectory whose length differs from that of its steps, the same example twice
            in one run, or a row without a method or with a figure that is not a number.
        OSError: the file cannot be written.
    """
    _check(curves)
    methods = list(dict.fromkeys(name for curve in curves for name in curve.predicted))
    page = render_page(
        "simulator.report",
        "page.html.jinja",
        data=_data(metric, methods, curves),
        config=config,
        metric=metric,
        facts=dict(facts),
        groups=_groups(rows),
        methods=[
            {
                "name": name,
                "colour": method_colour(name),
                "dash": method_dash(name),
                "dashes": DASH_ARRAYS[method_dash(name)],
                "drawn": drawn_at_first(name),
            }
            for name in methods
        ],
        last_method=methods[-1] if methods else None,
        curve_count=len(curves),
    )
    write_output_text(Path(path), page)


def _check(curves: Sequence[Curve]) -> None:
    if len(curves) == 0:
        raise DataError("the report has no curves to show: pass at least one test example of a held-out run")
    seen: set[tuple[str, str, int]] = set()
    for curve in curves:
        where = f"run {curve.run!r}, test example {curve.test_id} of task {curve.task!r}"
        steps = len(curve.step)
        if steps == 0:
            raise DataError(f"{where}: no steps")
        if len(curve.truth) != steps:
            raise DataError(f"{where}: the ground truth has {len(curve.truth)} values for {steps} steps")
        for method, values in curve.predicted.items():
            if len(values) != steps:
                raise DataError(f"{where}: method {method!r} predicts {len(values)} values for {steps} steps")
        key = (curve.run, curve.task, int(curve.test_id))
        if key in seen:
            raise DataError(f"{where}: given twice; a run has one curve for each test example")
        seen.add(key)


# The figures' data


def _data(metric: str, methods: Sequence[str], curves: Sequence[Curve]) -> dict[str, object]:
    """Collect what the page's script needs; runs, examples and step lists are stored once each."""
    runs: dict[str, int] = {}
    steps: dict[tuple[int, ...], int] = {}
    examples: dict[tuple[str, int, str | None, str | None], int] = {}
    entries: list[dict[str, object]] = []
    for curve in curves:
        example = (curve.task, int(curve.test_id), curve.prompt, curve.target)
        entries.append(
            {
                "run": runs.setdefault(curve.run, len(runs)),
                "example": examples.setdefault(example, len(examples)),
                "steps": steps.setdefault(tuple(int(s) for s in curve.step), len(steps)),
                "truth": _numbers(curve.truth),
                "predicted": [_numbers(curve.predicted[name]) if name in curve.predicted else None for name in methods],
            }
        )
    return {
        "metric": metric,
        "axis": AXIS_TITLES.get(metric, metric),
        "methods": [{"name": m, "colour": method_colour(m), "dash": method_dash(m)} for m in methods],
        "runs": list(runs),
        "steps": [list(s) for s in steps],
        "examples": [
            {"task": task, "id": test_id, "prompt": prompt, "target": target}
            for task, test_id, prompt, target in examples
        ],
        "curves": entries,
        "panels": _panels(methods[-1] if methods else None, curves),
    }


def _panels(method: str | None, curves: Sequence[Curve]) -> list[dict[str, object]]:
    """Choose the small figures: examples spread evenly over the quantiles of one method's error."""
    errors: list[tuple[float, int]] = []
    if method is not None:
        for index, curve in enumerate(curves):
            error = _mean_absolute_error(curve.truth, curve.predicted.get(method, ()))
            if error is not None:
                errors.append((error, index))
    if not errors:
        return [{"curve": i, "mae": None, "place": ""} for i in _spread(len(curves))]
    errors.sort()
    chosen = _spread(len(errors))
    return [{"curve": errors[i][1], "mae": _number(errors[i][0]), "place": _place(i, len(errors))} for i in chosen]


def _spread(count: int) -> list[int]:
    """Positions of the quantiles 0, 1/5, ..., 1 among `count` sorted things, each position once."""
    return sorted({round(k * (count - 1) / (_PANELS - 1)) for k in range(_PANELS)})


def _place(position: int, count: int) -> str:
    if count == 1:
        return ""
    if position == 0:
        return "smallest error"
    if position == count - 1:
        return "largest error"
    return f"{round(100 * position / (count - 1))}% have a smaller error"


def _mean_absolute_error(truth: Sequence[float], predicted: Sequence[float]) -> float | None:
    gaps = [abs(float(a) - float(b)) for a, b in zip(truth, predicted, strict=False)]
    finite = [gap for gap in gaps if math.isfinite(gap)]
    return math.fsum(finite) / len(finite) if finite else None


def _numbers(values: Iterable[float]) -> list[float | int | None]:
    return [_number(float(value)) for value in values]


def _number(value: float) -> float | int | None:
    """Round to five significant digits; a whole number becomes an int, which is shorter in JSON."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


# The table


def _groups(rows: Sequence[Mapping[str, object]]) -> list[_Group]:
    """Put rows of the same config, metric and split together, in the order of their first row."""
    together: dict[tuple[str, str, str], list[Mapping[str, object]]] = {}
    for row in rows:
        if not row.get("method"):
            raise DataError(f"an evaluation row names no method: {dict(row)!r}")
        key = (str(row.get("config", "")), str(row.get("metric", "")), str(row.get("split", "")))
        together.setdefault(key, []).append(row)
    return [_group(key, members) for key, members in together.items()]


def _group(key: tuple[str, str, str], rows: Sequence[Mapping[str, object]]) -> _Group:
    config, metric, split = key
    parts = [config, metric, f"split {split}" if split else ""]
    columns = [
        _column(rows, "skill", _fixed(3), _higher),
        _column(rows, "mse", _fixed(_decimals(rows, "mse")), _lower, "mse_std"),
        _column(rows, "mae", _fixed(_decimals(rows, "mae")), _lower, "mae_std"),
        _column(rows, "spearman", _fixed(3), _higher, "spearman_std"),
        _column(rows, "coverage", _percent, _nearest_to_band),
        _column(rows, "runs", _fixed(0), None),
        _column(rows, "examples", _fixed(0), None),
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
                dashes=DASH_ARRAYS[method_dash(method)],
                cells=cells,
            )
        )
    return _Group(title=" · ".join(part for part in parts if part), lines=tuple(lines))


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
    values = [_figure(row, name) for row in rows]
    known = [value for value in values if value is not None]
    best = text(min(known, key=rank)) if rank is not None and len(known) > 1 else None
    if best is not None and all(text(value) == best for value in known):
        best = None
    cells = []
    for row, value in zip(rows, values, strict=True):
        if value is None:
            cells.append(_Cell(text=None))
            continue
        std = _figure(row, spread) if spread is not None else None
        cells.append(_Cell(text(value), spread=None if std is None else text(std), best=text(value) == best))
    return cells


def _figure(row: Mapping[str, object], name: str) -> float | None:
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


def _decimals(rows: Sequence[Mapping[str, object]], name: str) -> int:
    """Decimals that give the smallest value of a column three significant digits, six at most."""
    values = [abs(value) for row in rows if (value := _figure(row, name))]
    return min(6, max(0, 2 - math.floor(math.log10(min(values))))) if values else 3


def _fixed(decimals: int) -> Callable[[float], str]:
    """Return a formatter with so many decimals, fewer where a large value needs none of them."""

    def text(value: float) -> str:
        needless = max(0, math.floor(math.log10(abs(value)))) if value else 0
        places = min(decimals, max(0, 4 - needless))
        plain = f"{value:.{places}f}" if abs(value) < 1e7 else f"{value:.3g}"
        plain = plain.removeprefix("-") if float(plain) == 0 else plain
        return plain.replace("-", "\u2212")

    return text


def _percent(value: float) -> str:
    return _fixed(1)(100 * value) + "%"
