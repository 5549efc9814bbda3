"""A validation as tables and figures."""

from __future__ import annotations

import numpy as np

from simulator.attribution.counterfactuals import KINDS, SUBSETS
from simulator.attribution.datamodelling import Score, datamodelling_score
from simulator.evaluation.scoring import score_prediction
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.use_cases.validate import Validation, covered

# What a score is taken over, by its name in tables.
GROUPS: dict[str, tuple[str, ...]] = {"subsets": SUBSETS, **{kind: (kind,) for kind in KINDS}}

# Kinds of change by the method whose colour they have in figures.
DRAWN = {
    "leave_out": "memory",
    "replace": "markov_1",
    "other_subset": "memory_gradient",
    "reorder": "simfluence_linear",
}


def _interval(found: Score) -> str:
    if found.value is None:
        return "-"
    return f"{number_text(found.value)} [{number_text(found.low)}, {number_text(found.high)}]"


def validation_result(found: Validation) -> Result:
    """Linear datamodelling scores, errors, calibration and cost."""
    result = Result()
    kinds = np.array(found.kinds)
    cells: dict[str, list[list[str]]] = {"final": [], "whole": []}
    for name, predicted in found.predicted.items():
        for outcome, of in (("final", lambda each: each[:, -1]), ("whole", lambda each: each[:, 1:].mean(1))):
            line = [name]
            for group, members in GROUPS.items():
                chosen = np.isin(kinds, members)
                lds = datamodelling_score(of(predicted[chosen]), of(found.truth[chosen]))
                line.append(_interval(lds))
                result.rows.append(
                    {"method": name, "outcome": outcome, "over": group, "runs": int(chosen.sum()), **vars(lds)}
                )
            cells[outcome].append(line)
    about = f"{found.config}, {found.metric}, changes of run {found.run}"
    columns = ["method", *[f"{group} ({int(np.isin(kinds, members).sum())})" for group, members in GROUPS.items()]]
    result.tables.append(Table(f"{about}: datamodelling score, last step", columns, cells["final"]))
    result.tables.append(Table(f"{about}: datamodelling score, mean over measured steps", columns, cells["whole"]))
    result.tables.append(_errors(found, about, result))
    if found.bands:
        result.tables.append(_calibration(found, about, result))
    result.tables.append(_cost(found, result))
    result.figures.append(_figure(found, about, result))
    result.notes.append(
        f"{len(kinds)} real runs, {found.truth.shape[2]} test examples, {len(found.step)} measured steps. A score is "
        "Spearman's correlation over runs between predicted and true values of a test example, mean over test "
        "examples; in brackets its 95% interval, runs and test examples drawn anew 300 times; of a few runs it is too "
        "narrow. `subsets` are all kinds but reorder. The mean curve predicts the same for every run: it has no score."
    )
    if "tracin_cp_10" not in found.predicted:
        result.skipped.append(f"tracin_cp_10: run {found.run} has no recorded gradient products of the {found.metric}")
    return result


def _errors(found: Validation, about: str, result: Result) -> Table:
    cells = []
    reference = found.predicted["mean_curve"]
    for name, predicted in found.predicted.items():
        figures = score_prediction(predicted, found.truth, reference, 1)
        result.rows.append({"method": name, "outcome": "error", **vars(figures)})
        cells.append([name, number_text(figures.mse), number_text(figures.mae), number_text(figures.skill)])
    return Table(f"{about}: errors over all measured steps", ["method", "MSE", "MAE", "skill"], cells)


def _calibration(found: Validation, about: str, result: Result) -> Table:
    cells = []
    for level in found.bands:
        line = [f"{level:.0%}"]
        for group, members in {"all": tuple(KINDS), **{kind: (kind,) for kind in KINDS}}.items():
            share, error = covered(found, level, members)
            result.rows.append({"outcome": "coverage", "level": level, "over": group, "share": share, "error": error})
            line.append(number_text(share, error))
        cells.append(line)
    columns = ["band", "all", *KINDS]
    return Table(f"{about}: share of true values inside (standard error by run)", columns, cells)


def _cost(found: Validation, result: Result) -> Table:
    runs = len(found.kinds)
    each = (("simulated", found.simulated_seconds / runs), ("really trained and measured", found.trained_seconds))
    for what, seconds in each:
        result.rows.append({"outcome": "cost", "how": what, "runs": runs, "seconds_each": seconds})
    cells = [[what, str(runs), number_text(seconds)] for what, seconds in each]
    return Table("Cost, processor seconds", ["how", "runs", "each"], cells)


def _figure(found: Validation, about: str, result: Result) -> Figure:
    groups = [group.replace("_", "\n") for group in GROUPS]
    finals = [row for row in result.rows if row.get("outcome") == "final"]
    series = [
        Series(name, groups, [row["value"] for row in finals if row["method"] == name])
        for name in found.predicted
        if name != "mean_curve"
    ]
    panels = [Panel("", "changed runs", "datamodelling score, last step", series, kind="dots")]
    if found.bands:
        levels = [*found.bands]
        inside = [covered(found, level, tuple(KINDS))[0] for level in levels]
        lines = [Series("truth", levels, levels, "as promised"), Series(next(iter(found.predicted)), levels, inside)]
        panels.append(Panel("", "level of the band", "share of true values inside", lines, kind="points"))
    method, kinds = next(iter(found.predicted)), np.array(found.kinds)
    mean = found.predicted["mean_curve"][:, -1]
    guessed, changed = ((each[:, -1] - mean).mean(1) for each in (found.predicted[method], found.truth))
    dots = [
        Series(DRAWN[kind], guessed[kinds == kind].tolist(), changed[kinds == kind].tolist(), kind) for kind in KINDS
    ]
    title = f"mean final {found.metric} less the mean curve's"
    panels.append(Panel(f"{title}, each dot a run", "predicted", "true", dots, kind="scatter"))
    return Figure(about, panels, 3)
