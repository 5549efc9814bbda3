"""The picture: LDS against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS, OTHER = "#3B3BD6", "#C2447A"
# Room of a name beside its point.
NAME_WIDTH, NAME_HEIGHT = 80, 9


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "gptdynamics", "svg.fonttype": "none"}
    from matplotlib import pyplot

    return pyplot


def _colour(row: dict[str, Any]) -> str:
    return OURS if "(ours)" in row["title"] else OTHER


def _name(picture: Any, axis: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Write its name beside each point, above the names that it would cover."""
    picture.canvas.draw()
    scale = 72 / picture.dpi
    lines: list[tuple[float, float]] = []
    for x, y, name in sorted(points, key=lambda point: point[1]):
        left, at = axis.transData.transform((x, y)) * scale
        low = at + 4
        for other_left, other in lines:
            if abs(left - other_left) < NAME_WIDTH and low < other + NAME_HEIGHT:
                low = other + NAME_HEIGHT
        lines.append((left, low))
        axis.annotate(name, (x, y), (5, low - at), textcoords="offset points", fontsize=8)


def draw_cost(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """LDS at the last step against passes; what needs none stands at the left edge."""
    pyplot = _pyplot()
    picture, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    points: list[tuple[float, float, str]] = []
    for row in rows:
        score, passes = row["lds_last"], max(row["passes_fit"] + row["passes_next"] * row["asked"], 100)
        if score["value"] is None:
            continue
        spread = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
        axis.errorbar(passes, score["value"], spread, fmt="o", color=_colour(row), elinewidth=0.7, capsize=2)
        points.append((passes, score["value"], row["title"]))
    axis.set_xscale("log")
    axis.set_xlabel("forward-backward passes for all test examples (none: at the left edge)")
    axis.set_ylabel("LDS, last step")
    axis.set_title(title, fontsize=10)
    axis.grid(color="#E5E5E5")
    axis.spines[["top", "right"]].set_visible(False)
    _name(picture, axis, points)
    picture.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(picture)
