"""A validation as tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from simulator.attribution.counterfactuals import KINDS, SUBSETS
from simulator.attribution.lds import lds, lds_by_step, lds_difference
from simulator.evaluation.scoring import score_prediction
from simulator.reporting.numbers import interval_text, number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.reporting.verdicts import score_verdict
from simulator.use_cases.validate import Validation, covered

# What a score is taken over, by its name in tables.
GROUPS: dict[str, tuple[str, ...]] = {"subsets": SUBSETS, **{kind: (kind,) for kind in KINDS}}

# What of a trajectory is ranked.
OUTCOMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "final": lambda values: values[..., -1],
    "whole": lambda values: values[..., 1:].mean(-1),
}
TRACED = "tracin_cp_10"

# Kinds of change by the method whose colour they have in figures: methods that no panel of the same figure draws.
DRAWN = {
    "leave_out": "grad_dot",
    "replace": "simfluence_linear",
    "other_subset": "mean_curve",
    "reorder": "exact_first_order",
}


def groups_of(validation: Validation) -> dict[str, tuple[str, ...]]:
    """The groups of changes that there are."""
    return {group: members for group, members in GROUPS.items() if set(members) & set(validation.kinds)}


def kinds_of(validation: Validation) -> list[str]:
    """The kinds of change that there are, in the order of `KINDS`."""
    return [kind for kind in KINDS if kind in validation.kinds]


def validation_result(validation: Validation) -> Result:
    """Linear datamodelling scores, errors, calibration and cost."""
    result = Result()
    kinds = np.array(validation.kinds)
    cells = {outcome: _scores(validation, outcome, result) for outcome in OUTCOMES}
    about = f"{validation.config}, {validation.metric}, changes of run {validation.run}"
    columns = [
        "method",
        *[f"{group} ({int(np.isin(kinds, members).sum())})" for group, members in groups_of(validation).items()],
    ]
    result.tables.append(Table(f"{about}: datamodelling score, last step", columns, cells["final"]))
    result.tables.append(Table(f"{about}: datamodelling score, mean over measured steps", columns, cells["whole"]))
    result.tables.append(_errors(validation, about, result))
    if validation.bands:
        result.tables.append(_calibration(validation, about, result))
    result.tables.append(_cost(validation, result))
    result.figures.append(_figure(validation, about, result))
    result.notes.append(validation_verdict(validation))
    result.notes.append(
        f"{len(kinds)} real runs, {validation.truth.shape[1]} test examples, {len(validation.step)} measured steps. "
        "A score (LDS) is Spearman's correlation over runs between predicted and true values of a test example, "
        "averaged over test examples: 1 is a perfect ranking, 0 is chance. In brackets: its 95% interval, from 300 "
        "bootstrap draws of runs and test examples; for a few runs it is too narrow. `subsets` are all kinds but "
        "reorder. A line with `minus` is the difference of two scores on the same draws. The mean curve predicts "
        "the same for every run, so it has no score."
    )
    if validation.recorded:
        result.notes.append(
            f"The {validation.recorded} runs with rows left out are those of the dataset, without a fifth of the "
            "rows; they were not trained again. Steps at which they were not measured are left out everywhere."
        )
    if TRACED not in validation.predicted:
        result.skipped.append(
            f"{TRACED}: run {validation.run} has no recorded gradient products of the {validation.metric}"
        )
    return result


def validation_verdict(validation: Validation) -> str:
    """What the score of the simulator over all subsets means, at the last step."""
    method, chosen = next(iter(validation.predicted)), np.isin(validation.kinds, SUBSETS)
    of = OUTCOMES["final"]
    score = lds(of(validation.predicted[method])[chosen], of(validation.truth)[chosen])
    return score_verdict(method, score.value, score.low, score.high, int(chosen.sum()))


def _scores(validation: Validation, outcome: str, result: Result) -> list[list[str]]:
    """A line for each method with its score over each group of changes, and one for what it is ahead of TracIn."""
    of, kinds = OUTCOMES[outcome], np.array(validation.kinds)
    predicted = {name: of(values) for name, values in validation.predicted.items()}
    truth = of(validation.truth)
    method = next(iter(predicted))
    pairs: list[tuple[str, str | None]] = [(name, None) for name in predicted]
    pairs += [(method, TRACED)] if TRACED in predicted else []
    lines = []
    for name, other in pairs:
        title = name if other is None else f"{name} minus {other}"
        lines.append([title])
        for group, members in groups_of(validation).items():
            chosen = np.isin(kinds, members)
            if other is None:
                score = lds(predicted[name][chosen], truth[chosen])
            else:
                score = lds_difference(predicted[name][chosen], predicted[other][chosen], truth[chosen])
            lines[-1].append(interval_text(score.value, score.low, score.high))
            what = outcome if other is None else f"{outcome}_difference"
            about = {"method": title, "outcome": what, "over": group, "runs": int(chosen.sum())}
            result.rows.append(about | vars(score))
    return lines


def _errors(validation: Validation, about: str, result: Result) -> Table:
    cells = []
    for name, predicted in validation.predicted.items():
        figures = score_prediction(predicted, validation.truth, validation.predicted["mean_curve"], 1)
        result.rows.append({"method": name, "outcome": "error", **vars(figures)})
        cells.append([name, number_text(figures.mse), number_text(figures.mae), number_text(figures.skill)])
    return Table(f"{about}: errors over all measured steps", ["method", "MSE", "MAE", "skill"], cells)


def _calibration(validation: Validation, about: str, result: Result) -> Table:
    cells = []
    for level in validation.bands:
        line = [f"{level:.0%}"]
        for group, members in {"all": tuple(KINDS), **{kind: (kind,) for kind in kinds_of(validation)}}.items():
            share, error = covered(validation, level, members)
            result.rows.append({"outcome": "coverage", "level": level, "over": group, "share": share, "error": error})
            line.append(number_text(share, error))
        cells.append(line)
    columns = ["interval", "all", *kinds_of(validation)]
    return Table(f"{about}: share of true values inside (standard error by run)", columns, cells)


def _cost(validation: Validation, result: Result) -> Table:
    runs = len(validation.kinds)
    each = (
        ("simulated", validation.simulated_seconds / runs),
        ("really trained and measured", validation.trained_seconds),
    )
    for what, seconds in each:
        result.rows.append({"outcome": "cost", "how": what, "runs": runs, "seconds_each": seconds})
    cells = [[what, str(runs), number_text(seconds)] for what, seconds in each]
    return Table("Cost, processor seconds", ["how", "runs", "each"], cells)


def _by_step(validation: Validation, about: str, result: Result) -> Panel:
    """Scores over all subsets at each measured step after the first, where all runs are the same, and their table."""
    chosen = np.isin(validation.kinds, SUBSETS)
    series, cells = [], []
    for name, predicted in validation.predicted.items():
        if name == "mean_curve":
            continue
        scores = lds_by_step(predicted[chosen, :, 1:], validation.truth[chosen, :, 1:])
        steps = validation.step[1:].tolist()
        spread = [_reach(vars(score)) for score in scores]
        series.append(Series(name, steps, [score.value for score in scores], spread=spread))
        cells.append([name, *[interval_text(score.value, score.low, score.high) for score in scores]])
        result.rows.extend(
            {"method": name, "outcome": "step", "step": step, "over": "subsets", "runs": int(chosen.sum())}
            | vars(score)
            for step, score in zip(steps, scores, strict=True)
        )
    columns = ["method", *map(str, validation.step[1:])]
    result.tables.append(Table(f"{about}: datamodelling score of subsets by number of updates", columns, cells))
    return Panel("subsets", "updates", "datamodelling score", series, kind="points")


def _reach(score: Mapping[str, Any]) -> tuple[float, float]:
    """How far the interval of a score reaches below and above it."""
    value, low, high = (score[name] for name in ("value", "low", "high"))
    return (0.0, 0.0) if None in (value, low, high) else (value - low, high - value)


def _figure(validation: Validation, about: str, result: Result) -> Figure:
    groups = [group.replace("_", "\n") for group in groups_of(validation)]
    finals = [row for row in result.rows if row.get("outcome") == "final"]
    series = [
        Series(name, groups, [row["value"] for row in rows], spread=[_reach(row) for row in rows])
        for name in validation.predicted
        for rows in [[row for row in finals if row["method"] == name]]
        if name != "mean_curve"
    ]
    panels = [Panel("", "changed runs", "datamodelling score, last step", series, kind="dots")]
    if validation.bands:
        levels = [*validation.bands]
        inside = [covered(validation, level, tuple(KINDS))[0] for level in levels]
        lines = [
            Series("truth", levels, levels, "as promised"),
            Series(next(iter(validation.predicted)), levels, inside),
        ]
        panels.append(Panel("", "level of the interval", "share of true values inside", lines, kind="points"))
    panels.append(_by_step(validation, about, result))
    method, kinds = next(iter(validation.predicted)), np.array(validation.kinds)
    mean = validation.predicted["mean_curve"][..., -1]
    guessed, changed = ((each[..., -1] - mean).mean(1) for each in (validation.predicted[method], validation.truth))
    dots = [
        Series(DRAWN[kind], guessed[kinds == kind].tolist(), changed[kinds == kind].tolist(), kind)
        for kind in kinds_of(validation)
    ]
    title = f"mean final {validation.metric} minus the mean curve's"
    panels.append(Panel(f"{title}, each dot a run", "predicted", "true", dots, kind="scatter"))
    return Figure(about, panels, 3)
