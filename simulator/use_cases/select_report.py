"""A selection as a table and a figure."""

from __future__ import annotations

import numpy as np

from simulator.experiments.result import Figure, Panel, Result, Series, Table, shown
from simulator.use_cases.select import Selection


def selection_result(found: Selection) -> Result:
    """What training on each method's choice gave."""
    result, cells = Result(), []
    sides = {"target": found.on_target, "other test examples": found.on_others}
    for name, choices in found.choices.items():
        row: dict[str, object] = {"method": name, "chosen": choices[0] if name != "random" else choices}
        line = [name]
        for side, values in sides.items():
            each = values.get(name)
            row[side] = None if each is None else each.tolist()
            line.append("-" if each is None else shown(float(each.mean()), float(each.std())))
        gain, simulated = float(_gain(found, name).mean()), float(found.simulated[name].mean())
        result.rows.append(row | {"better_than_random": gain, "simulated": simulated})
        cells.append([*line, shown(gain), shown(simulated)])
    about = f"{found.config}: {found.settings.count} examples chosen"
    columns = ["method", f"{found.metric}, target", "other test examples", "better than random by", "simulated, target"]
    result.tables.append(Table(f"{about}, final {found.metric}", columns, cells))
    names = list(found.choices)
    series = [
        Series(method, names, [float(values[name].mean()) for name in names], side)
        for (side, values), method in zip(sides.items(), ("memory", "random"), strict=True)
        if values
    ]
    result.figures.append(Figure(about, [Panel("", "chosen by", f"final {found.metric}", series, kind="dots")], 1))
    time = "" if found.seconds is None else f" One training took {shown(found.seconds)} s of processor time."
    result.notes.append(
        f"Means and deviations over {found.settings.seeds} trainings of {found.updates} updates each; "
        f"{len(found.target)} target and {len(found.others)} other test examples. Each seed trains on a choice in "
        f"another order; random chooses anew.{time}"
    )
    return result


def _gain(found: Selection, name: str) -> np.ndarray:
    """How much better than random on the target, mean over random's seeds."""
    gain = found.on_target["random"].mean() - found.on_target[name]
    return -gain if found.higher_is_better else gain
