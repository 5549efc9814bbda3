"""Wrong labels as files: the list of suspects, and figure 7 with its areas."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.outputs import plain_value, write_output_text
from gptdynamics.terminal_text import cut_text
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.settings.use_cases import KERNEL_HARM, MEAN_RANK, MISLABEL_TITLES, MislabelSettings
from simulator.use_cases.mislabel import Mislabels, detected_shares, shuffles
from simulator.use_cases.mislabel_retraining import Retrained

INSPECTED = 0.5
LISTED = 10
FOUND_AT = (0.1, 0.2, 0.5)
# Methods by their name in figures, which gives their colour.
DRAWN = {
    "random": "random",
    "tracin_self": "tracin_cp_10",
    "gptfluence_alpha": "markov_1",
    "memory_left_out": "memory",
    "measured_left_out": "mean_curve",
    "ridge_left_out": "memory_gradient",
    MEAN_RANK: "simfluence_linear",
    KERNEL_HARM: "tangent",
}


def suspects(mislabels: Mislabels) -> list[dict[str, Any]]:
    """A row for each training example, the most suspicious first."""
    indices = {example.id: index for index, example in enumerate(mislabels.pool)}
    rows = []
    for rank, key in enumerate(mislabels.ranking(), start=1):
        example = mislabels.pool[indices[key]]
        row = {
            "rank": rank,
            "id": key,
            "row": example.source.get("row", key),
            "label": example.target.strip(),
            **({"likelier": mislabels.likelier[indices[key]].strip()} if mislabels.likelier else {}),
            "prompt": example.prompt,
            **{name: float(values[indices[key]]) for name, values in mislabels.scores.items()},
        }
        rows.append(row | ({"flipped": key in mislabels.truth} if mislabels.truth else {}))
    return rows


def suspects_result(mislabels: Mislabels) -> Result:
    """The ten most suspicious training examples as a table, and all of them as rows; where no labels were flipped."""
    by = mislabels.order.by
    rows = suspects(mislabels)
    cells = [
        [str(row["row"]), row["label"], row.get("likelier", "-"), number_text(row[by]), cut_text(row["prompt"]) or "-"]
        for row in rows[:LISTED]
    ]
    title = f"{mislabels.settings.task}: the most suspicious of {len(rows)} labels, by {by}"
    positions = list(range(1, len(rows) + 1))
    series = Series(DRAWN[by], positions, [row[by] for row in rows], MISLABEL_TITLES[by])
    return Result(
        tables=[Table(title, ["row", "given", "likelier", "score", "text"], cells)],
        figures=[Figure(title, [Panel("", "rank", by, [series])])],
        rows=rows,
        notes=[suspects_verdict(mislabels)],
    )


def suspects_verdict(mislabels: Mislabels) -> str:
    """How many labels the others speak against, what orders the list and why, and what to do with it."""
    order = f"Ordered by {mislabels.order.by} ({mislabels.order.why})"
    if not mislabels.likelier:
        return f"{order}. It is a list to be read, not a list of errors."
    pairs = zip(mislabels.likelier, mislabels.pool, strict=True)
    other = sum(likelier != example.target for likelier, example in pairs)
    if not other:
        return f"For no row is another label likelier by what the other rows say: no label is suspected. {order}."
    return (
        f"For {other} of {len(mislabels.pool)} rows another label is likelier by what the other rows say. {order}. "
        "It is a list to be read in this order, not a list of errors."
    )


def write_suspects(mislabels: Mislabels) -> tuple[Path, Path]:
    """Write suspects.csv and suspects.jsonl, the most suspicious first."""
    rows = suspects(mislabels)
    lines = "".join(json.dumps(plain_value(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    # A spreadsheet must not take a text for a formula.
    writer.writerows([row | {"prompt": _plain_cell(str(row["prompt"]))} for row in rows])
    paths = mislabels.settings.output / "suspects.csv", mislabels.settings.output / "suspects.jsonl"
    for path, text in zip(paths, (table.getvalue(), lines), strict=True):
        write_output_text(path, text)
    return paths


def _plain_cell(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def detection(mislabels: Mislabels) -> dict[str, np.ndarray]:
    """Share of the mislabelled examples found after inspecting n rows, n = 0 .. N, by method; random is a mean."""
    ids = [example.id for example in mislabels.pool]
    curves = {
        "random": np.mean(
            [detected_shares(each, mislabels.truth) for each in shuffles(ids, mislabels.settings.seed)], 0
        )
    }
    return curves | {name: detected_shares(mislabels.ranking(name), mislabels.truth) for name in mislabels.scores}


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Mean height over 0 .. `INSPECTED`."""
    inside = x <= INSPECTED + 1e-9
    return float(np.trapezoid(y[inside], x[inside]) / x[inside][-1])


def mislabel_result(mislabels: Mislabels) -> Result:
    """Both plots of figure 7, and the areas under their curves; needs flipped labels."""
    settings, result, curves = mislabels.settings, Result(), detection(mislabels)
    x = np.linspace(0, 1, len(mislabels.pool) + 1)
    for name, curve in curves.items():
        inspected = {f"found_{share:g}": float(np.interp(share, x, curve)) for share in FOUND_AT}
        result.rows.append({"method": name, **inspected, "found_area": _area(x, curve)})
    title = f"{settings.task}, {len(mislabels.pool)} rows, {len(mislabels.truth)} labels flipped: share of them found"
    columns = ["method", *[f"in first {share:.0%}" for share in FOUND_AT], "area"]
    cells = [[str(row["method"]), *[number_text(row[key]) for key in list(row)[1:]]] for row in result.rows]
    result.tables.append(Table(title, columns, cells))
    every, half = max(1, len(mislabels.pool) // 200), x <= INSPECTED + 1e-9
    series = [
        Series(DRAWN[name], x[half][::every].tolist(), curve[half][::every].tolist(), MISLABEL_TITLES[name])
        for name, curve in curves.items()
    ]
    panels = [Panel("", "fraction of training data inspected", "fraction of mislabels found", series)]
    if mislabels.retrained:
        panels.append(_add_retraining(result, settings, mislabels.retrained))
    result.figures.append(Figure(f"{settings.task}: mislabelled examples found, and corrected", panels, 2))
    result.notes.append(detection_verdict(mislabels, curves))
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in mislabels.seconds.items())
    result.notes.append(f"Areas are mean heights over the first {INSPECTED:.0%}. Processor time: {spent}.")
    return result


def detection_verdict(mislabels: Mislabels, curves: dict[str, np.ndarray]) -> str:
    """How many of the flipped labels the chosen ranking finds first, beside chance."""
    by, first, flipped = mislabels.order.by, round(FOUND_AT[1] * len(mislabels.pool)), len(mislabels.truth)
    found, chance = round(float(curves[by][first] * flipped)), first * flipped / len(mislabels.pool)
    # Of a draw without replacement.
    spread = np.sqrt(chance * (1 - flipped / len(mislabels.pool)) * (1 - first / len(mislabels.pool)))
    more = found > chance + 2 * spread
    return (
        f"In its first {first} rows {by} has {found} of the {flipped} wrong labels; chance has {chance:.0f} with a "
        f"deviation of {spread:.0f}: {'it finds wrong labels here' if more else 'that is no more than chance'}."
    )


def _add_retraining(result: Result, settings: MislabelSettings, again: Retrained) -> Panel:
    """Add accuracies to the rows, a table and a note; the plot of them."""
    shares, cells = np.array(again.shares), []
    rows = {str(row["method"]): row for row in result.rows}
    for name, accuracy in again.accuracy.items():
        areas = [_area(shares, each) for each in accuracy]
        rows[name] |= {
            "accuracy": dict(zip(map(str, again.shares), accuracy.T.tolist(), strict=True)),
            "accuracy_area": float(np.mean(areas)),
            "accuracy_area_std": float(np.std(areas)),
        }
        each = [number_text(float(column.mean()), float(column.std())) for column in accuracy.T]
        cells.append([name, *each, number_text(float(np.mean(areas)), float(np.std(areas)))])
    clean = float(again.clean.mean())
    title = f"{settings.task}: test accuracy after correction and training again"
    result.tables.append(Table(title, ["method", *[f"{share:.0%} inspected" for share in shares], "area"], cells))
    result.notes.append(
        f"With every label right: accuracy {number_text(clean, float(again.clean.std()))}. "
        f"Means and standard deviations are over {len(again.clean)} training seeds; "
        f"{again.trainings} trainings."
    )
    series = [
        Series(DRAWN[name], list(again.shares), values.mean(0).tolist(), MISLABEL_TITLES[name], values.std(0).tolist())
        for name, values in again.accuracy.items()
    ]
    spread = 2 * [float(again.clean.std())]
    series.append(Series("truth", [0.0, INSPECTED], [clean, clean], "all labels right", spread))
    return Panel("", "fraction of training data inspected", "test accuracy after retraining", series, kind="points")
