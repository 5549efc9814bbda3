"""Runs made again with rows left out: how well each method ranks them, by the linear datamodelling score (LDS)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np

from gptdynamics.configs import split_of
from simulator.attribution.lds import lds_by_step, lds_difference
from simulator.baselines import NotApplicableError
from simulator.evaluation.evaluate import simulators_to_train, unique_names
from simulator.evaluation.simulated import Simulated, name_of
from simulator.experiments.comparison import Row, distinct
from simulator.experiments.retraining_methods import (
    RetrainedTestRuns,
    RetrainingMethod,
    by_exact_first_order,
    by_kernels,
    by_target,
)
from simulator.experiments.workbench import UNTRAINABLE, Workbench
from simulator.reporting.numbers import interval_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.settings.evaluate import EvaluateSettings
from simulator.training import TrainSettings

METRIC = "loss"
# What is said of all repeated runs together.
ALL = "all"
# The first of these that has a score is what the others are compared with.
COMPARED_WITH = ("tangent", "memory_gradient", "memory_sentence", "memory_label")
METHODS = (
    RetrainingMethod("tangent_targets", by_target),
    RetrainingMethod("kernel_tracin", partial(by_kernels, summed=False), sees_run=True),
    RetrainingMethod("kernel_sum", partial(by_kernels, summed=True), sees_run=True),
)
EXACT = RetrainingMethod("exact_first_order", by_exact_first_order, sees_run=True)
NOTES = (
    "Each retraining is a test run trained again with a random fifth of its rows left out, all else equal. LDS is "
    "Spearman's correlation over the retrainings between predicted and true loss of a test example, averaged over test "
    "examples; 1 is a perfect ranking, 0 is chance. In brackets: its 95% interval; in the heading: the number of "
    "retrainings. The last column is tangent's LDS minus that of the row, both on the same bootstrap draws.",
    "Methods that see the run use gradients of the run that is trained again, which no prediction of a new run has. "
    "They add up gradient products: `kernel_tracin` at the last checkpoint before each update, `kernel_sum` averaged "
    "over checkpoints. `exact_first_order` (with `--exact`) is the derivative through all updates. `tangent_targets` "
    "is tangent with 1 for pairs of the same target, and 0 for others, in place of gradient products.",
)


def _trained(bench: Workbench, settings: TrainSettings, retrainings: RetrainedTestRuns) -> np.ndarray:
    return _simulated(Simulated(bench.trained(settings).model), retrainings)


def _simulated(simulated: Simulated, retrainings: RetrainedTestRuns) -> np.ndarray:
    if simulated.history > 1:
        raise NotApplicableError(f"{simulated.name} would be given {simulated.history} values of each retraining")
    return simulated.predict(retrainings.runs)


def _trained_methods(bench: Workbench, config: str) -> list[RetrainingMethod]:
    """The simulators that an evaluation trains."""
    settings = simulators_to_train(EvaluateSettings(bench.dataset, config, METRIC), bench.runs(config, METRIC))
    return [RetrainingMethod(name_of(each, each.encoder), partial(_trained, bench, each)) for each in settings]


def _given_methods(simulators: Sequence[Simulated]) -> list[RetrainingMethod]:
    names = unique_names(simulators)
    return [RetrainingMethod(name, partial(_simulated, each)) for name, each in zip(names, simulators, strict=True)]


def counterfactuals(bench: Workbench) -> Result:
    """Score every method on the retrainings of each config's test runs."""
    result, configs = bench.begin()
    for config in configs:
        if has_retrainings(bench, config):
            rows, reasons = retraining_rows(bench, config)
            result.rows.extend(rows)
            result.skipped.extend(reasons)
        else:
            result.skipped.append(f"{config}: no runs made again with rows left out; collect with --counterfactuals")
    return result


def show_counterfactuals(rows: list[Row]) -> Result:
    """A table for each config; a panel for each run that was made again."""
    page, panels = Result(), []
    for config in distinct(rows, "config"):
        mine = [row for row in rows if row["config"] == config]
        page.tables.append(retraining_table(config, mine))
        scores = [row for row in mine if row["less"] is None]
        for run in distinct(scores, "run"):
            if run == ALL:
                continue
            of_run = [row for row in scores if row["run"] == run]
            steps = distinct(of_run, "step")
            if len(steps) < 2:
                # One step is no curve: its numbers are in the table.
                continue
            series = [
                Series(method, steps, [row["value"] for row in of_run if row["method"] == method])
                for method in distinct(of_run, "method")
            ]
            panels.append(Panel(f"{config}, run {run}", "updates", "LDS", series, kind="points"))
    if rows:
        page.figures.append(Figure("LDS of each method by number of updates", panels))
        page.notes.extend(NOTES)
    return page


def has_retrainings(bench: Workbench, config: str) -> bool:
    """Whether a run of a config was made again with rows left out."""
    return any(split_of(run) == "counterfactual" for run in bench.folder.finished(config))


def retraining_rows(
    bench: Workbench, config: str, simulators: Sequence[Simulated] | None = None
) -> tuple[list[Row], list[str]]:
    """How methods rank the retrainings of a config's test runs, and the reasons why others cannot.

    Args:
        bench: the dataset.
        config: one with retrainings.
        simulators: those that are scored; default: those that an evaluation trains.
    """
    seen = bench.runs(config, METRIC).split("train", "validation")
    try:
        read = bench.runs(config, METRIC, counterfactual=True)
        retrainings = RetrainedTestRuns.of(read, seen, bench.on_phase, bench.on_progress)
    except NotApplicableError as error:
        return [], [str(error)]
    predicted: dict[str, np.ndarray] = {}
    sees_run: dict[str, bool] = {}
    skipped = []
    methods = _trained_methods(bench, config) if simulators is None else _given_methods(simulators)
    for method in [*methods, *METHODS, *([EXACT] if bench.exact else [])]:
        try:
            predicted[method.name] = method.predict(retrainings)
            sees_run[method.name] = method.sees_run
        except UNTRAINABLE as error:
            skipped.append(f"{config}, {method.name}: {error}")
    runs = [*retrainings.facts.runs, *([ALL] if len(retrainings.facts.runs) > 1 else [])]
    return [row for run in runs for row in _rows(config, run, retrainings, predicted, sees_run)], skipped


def _rows(
    config: str, run: str, retrainings: RetrainedTestRuns, predicted: dict[str, np.ndarray], sees_run: dict[str, bool]
) -> list[Row]:
    """Scores at every measured step after the first, and differences at the last, of one repeated run or of all."""
    chosen = np.arange(len(retrainings.repeated)) if run == ALL else retrainings.places(run)
    repeated = [retrainings.repeated[place] for place in chosen]
    truth, step = retrainings.runs.values[chosen, :, 1:], retrainings.runs.step[1:].tolist()
    about = {"config": config, "run": run, "retrainings": len(chosen)}
    rows = []
    for method, values in predicted.items():
        scores = lds_by_step(values[chosen, :, 1:], truth, repeated)
        rows += [
            about | {"method": method, "sees_run": sees_run[method], "step": each, "less": None} | vars(score)
            for each, score in zip(step, scores, strict=True)
        ]
    for one, other in combinations(predicted, 2):
        score = lds_difference(predicted[one][chosen, :, -1], predicted[other][chosen, :, -1], truth[..., -1], repeated)
        rows.append(about | {"method": one, "sees_run": sees_run[one], "step": step[-1], "less": other} | vars(score))
    return rows


def retraining_table(config: str, rows: list[Row]) -> Table:
    """A line for each method: its score at the last step, and what the compared one is ahead of it, for each run."""
    last = max(row["step"] for row in rows)
    columns = ["method", "sees the run"]
    cells: dict[str, list[str]] = {}
    for run in distinct(rows, "run"):
        final = [row for row in rows if (row["run"], row["step"]) == (run, last)]
        scores = {row["method"]: row for row in final if row["less"] is None}
        compared = next((name for name in COMPARED_WITH if scores.get(name, {}).get("value") is not None), None)
        columns.append(f"{run if run == ALL else f'run {run}'} ({final[0]['retrainings']})")
        columns += [f"{compared} minus it"] if compared else []
        ahead = {(row["method"], row["less"]): row for row in final if row["less"] is not None}
        for method, row in scores.items():
            line = cells.setdefault(method, [method, "yes" if row["sees_run"] else "no"])
            line.append(_text(row))
            if compared:
                line.append(_text(ahead.get((compared, method)), ahead.get((method, compared))))
    return Table(f"{config}: LDS of the {METRIC} after {last} updates", columns, list(cells.values()))


def _text(row: Row | None, reverse: Row | None = None) -> str:
    """A score with its interval, or the negative of the reverse difference; nothing where there is neither."""
    if row is not None:
        return interval_text(row["value"], row["low"], row["high"])
    if reverse is None or reverse["value"] is None:
        return ""
    return interval_text(-reverse["value"], -reverse["high"], -reverse["low"])
