"""A selection as a table and a figure."""

from __future__ import annotations

import numpy as np

from gptdynamics.terminal_text import cut_text
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.use_cases.influence_report import example_text
from simulator.use_cases.select import Selection


def selection_result(selection: Selection) -> Result:
    """What training on each method's choice gave."""
    result, cells = Result(), []
    sides = {"target": selection.on_target, "other test examples": selection.on_others}
    for name, choices in selection.choices.items():
        row: dict[str, object] = {"method": name, "chosen": choices[0] if name != "random" else choices}
        line = [name]
        for side, values in sides.items():
            each = values.get(name)
            row[side] = None if each is None else each.tolist()
            line.append("-" if each is None else number_text(float(each.mean()), float(each.std())))
        gain, error = better_than_random(selection, name)
        simulated = float(selection.simulated[name].mean())
        simulation_error = float(selection.simulation_error[name].mean())
        row |= {
            "better_than_random": gain,
            "standard_error": error,
            "simulated": simulated,
            "simulation_error": simulation_error,
        }
        result.rows.append(row)
        cells.append(
            [
                *line,
                "-" if name == "random" else number_text(gain, error),
                number_text(simulated),
                number_text(simulation_error),
            ]
        )
    about = f"{selection.config}: {selection.settings.count} examples chosen"
    columns = [
        "method",
        f"{selection.metric}, target",
        "other test examples",
        "better than random by",
        "simulated, target",
        "standard error of that",
    ]
    result.tables.append(Table(f"{about}, final {selection.metric}", columns, cells))
    result.tables.append(_chosen_rows(selection))
    names = list(selection.choices)
    series = [
        Series(
            method,
            names,
            [float(values[name].mean()) for name in names],
            side,
            [float(values[name].std()) for name in names],
        )
        for (side, values), method in zip(sides.items(), ("memory", "random"), strict=True)
        if values
    ]
    result.figures.append(Figure(about, [Panel("", "chosen by", f"final {selection.metric}", series, kind="dots")], 1))
    time = (
        "" if selection.seconds is None else f" One training took {number_text(selection.seconds)} s of processor time."
    )
    result.notes.append(selection_verdict(selection))
    result.notes.append(
        f"Means and standard deviations over {selection.settings.random} random choices, and over "
        f"{selection.settings.seeds} orders of each other choice; {selection.updates} updates each; "
        f"{len(selection.target)} target and {len(selection.others)} other test examples. Better than random: on the "
        f"target, with the standard error of the difference.{time}"
    )
    return result


def best_choice(selection: Selection) -> str | None:
    """The method that is better than random choices by most, if that is beyond two standard errors."""
    better = {}
    for name in selection.choices:
        gain, error = better_than_random(selection, name)
        if name != "random" and gain > 2 * error:
            better[name] = gain
    return max(better, key=lambda name: better[name]) if better else None


def selection_verdict(selection: Selection) -> str:
    """Whether a choice is worth more than a random one."""
    best, metric = best_choice(selection), selection.metric
    gain, error = better_than_random(selection, best or "greedy")
    if best is None:
        return (
            f"No choice is better than random ones by more than two standard errors (greedy by {number_text(gain)}, "
            f"standard error {number_text(error)}): on these rows, choosing is not shown to pay."
        )
    return (
        f"{best} is better than random choices by {number_text(gain)} of the target's final {metric} (standard error "
        f"{number_text(error)}). It is one choice on one target: check it on another."
    )


def _chosen_rows(selection: Selection) -> Table:
    """The rows of the best choice, or of the simulator's where none is better than random."""
    method = best_choice(selection) or "greedy"
    by_id, chosen = {example.id: example for example in selection.pool}, selection.choices[method][0]
    cells = [[str(key), cut_text(example_text(by_id[key])) if key in by_id else ""] for key in chosen]
    return Table(f"{selection.config}: the {len(chosen)} rows chosen by {method}", ["row", "text"], cells)


def better_than_random(selection: Selection, name: str) -> tuple[float, float]:
    """How much better than random choices a method is on the target, on average, and the standard error of that."""
    mine, random = selection.on_target[name], selection.on_target["random"]
    gain = float(mine.mean() - random.mean()) * (1 if selection.higher_is_better else -1)
    # A single training says nothing of its own spread.
    spreads = [each.var(ddof=1) / len(each) for each in (mine, random) if len(each) > 1]
    return gain, float(np.sqrt(np.sum(spreads)))
