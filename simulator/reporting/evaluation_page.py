"""The page of an evaluation: its table and its trajectories, in one HTML file that loads nothing.

Everything that comes from a dataset is either escaped by the template or stands in one JSON block, from
where the page's script puts it in as text, never as markup.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from gptdynamics.errors import DataError
from gptdynamics.metrics import METRICS, Metric
from gptdynamics.options import command_line
from simulator.evaluation import EvaluateSettings, Evaluation
from simulator.evaluation.selection import evenly_spaced
from simulator.reporting.colours import DASH_ARRAYS, dark_colour, drawn_at_first, method_colour, method_dash
from simulator.reporting.evaluation_table import score_groups
from simulator.reporting.page import write_page
from simulator.reporting.result import Table
from simulator.settings.evaluate import ReportSettings

# Five runs of this many test examples keep the page below about 6 MB.
EXAMPLES_SHOWN = 40
_PANELS = 6
_DIGITS = 5


@dataclass(frozen=True)
class Curve:
    """One test example of one held-out run: what was measured and what each method predicted.

    Attributes:
        run, test_id, task: of the trajectory.
        prompt, target: texts; None where the dataset has none.
        step: the T + 1 training steps, with step 0.
        truth: the measured value at each step.
        predicted: by method, the predicted value at each step.
    """

    run: str
    test_id: int
    task: str
    prompt: str | None
    target: str | None
    step: Sequence[int]
    truth: Sequence[float]
    predicted: Mapping[str, Sequence[float]]


def report_evaluation(
    evaluation: Evaluation, settings: EvaluateSettings, path: Path, retrainings: Sequence[Table] = ()
) -> None:
    """Write the page of an evaluation; of a large test set, evenly spaced examples are shown.

    `retrainings` is how its methods rank runs made again with rows left out, of the experiment `counterfactuals`.
    """
    runs = evaluation.runs
    examples = evenly_spaced(len(runs.test), EXAMPLES_SHOWN)
    curves = [
        Curve(
            run=name,
            test_id=runs.test[test].id,
            task=runs.test[test].task,
            prompt=runs.test[test].prompt or None,
            target=runs.test[test].target or None,
            step=runs.step.tolist(),
            truth=runs.values[run, test].tolist(),
            predicted={method: values[run, test].tolist() for method, values in evaluation.predictions.items()},
        )
        for run, name in enumerate(runs.runs)
        for test in examples
    ]
    shown = ReportSettings(settings.dataset, path, runs.config, runs.metric, settings.models)
    facts = {
        "Dataset": str(settings.dataset),
        "Base model": f"{runs.base_model} ({runs.base_revision})",
        "Held-out runs": ", ".join(runs.runs),
        "Test examples shown": f"{len(examples)} of {len(runs.test)}",
        "Versions": ", ".join(f"{name} {version(name)}" for name in ("gptdynamics", "torch", "transformers")),
        "Made": time.strftime("%Y-%m-%d"),
        "Command": command_line("gptfluence", "report", shown),
    }
    rows = [asdict(row) for row in evaluation.rows]
    write_report(
        path,
        config=runs.config,
        metric=runs.metric,
        definition=runs.definition,
        retrainings=retrainings,
        rows=rows,
        curves=curves,
        facts=facts,
    )


def write_report(
    path: Path,
    *,
    config: str,
    metric: str,
    rows: Sequence[Mapping[str, object]],
    curves: Sequence[Curve],
    facts: Mapping[str, str],
    definition: Metric | None = None,
    retrainings: Sequence[Table] = (),
) -> None:
    """Write the report page, whole or not at all.

    Arguments:
        path: HTML file to write; its folder is made if needed, an existing file is replaced.
        config, metric: for the title.
        rows: evaluation rows; a figure that is missing, None or not finite is shown as undefined.
        curves: trajectories to show, in the order to list them in. All of them go into the page. Values that
            are not finite become gaps.
        facts: label -> value lines shown under the title.
        definition: what the metric is, for the axis; None: one of the package's, or only its name is known.
        retrainings: tables of how methods rank runs made again with rows left out.

    Raises:
        DataError: no curves, a trajectory whose length differs from that of its steps, the same example twice
            in one run, a row without a method or with a figure that is not a number, or the file cannot be written.
    """
    _check(curves)
    methods = list(dict.fromkeys(name for curve in curves for name in curve.predicted))
    write_page(
        path,
        "templates/evaluation.html.jinja",
        plotly=True,
        data=_metric(metric, definition or METRICS.get(metric)) | _data(methods, curves),
        config=config,
        metric=metric,
        facts=dict(facts),
        groups=score_groups(rows),
        retrainings=retrainings,
        methods=[
            {
                "name": name,
                "colour": method_colour(name),
                "dark": dark_colour(name),
                "dashes": DASH_ARRAYS[method_dash(name)],
                "drawn": drawn_at_first(name),
            }
            for name in methods
        ],
        last_method=methods[-1] if methods else None,
        curve_count=len(curves),
    )


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


def _metric(name: str, definition: Metric | None) -> dict[str, object]:
    """What the page's script needs of the metric; both values of a binary one are on the axis, whichever occur."""
    ends = [definition.least, definition.greatest] if definition and definition.binary else None
    return {"metric": name, "axis": definition.axis_title if definition else name, "ends": ends}


def _data(methods: Sequence[str], curves: Sequence[Curve]) -> dict[str, object]:
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
        "methods": [
            {"name": m, "colour": method_colour(m), "dark": dark_colour(m), "dash": method_dash(m)} for m in methods
        ],
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
        return [{"curve": i, "mae": None, "place": ""} for i in evenly_spaced(len(curves), _PANELS)]
    errors.sort()
    chosen = evenly_spaced(len(errors), _PANELS)
    return [{"curve": errors[i][1], "mae": _number(errors[i][0]), "place": _place(i, len(errors))} for i in chosen]


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
