"""The picture: LDS against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS, OTHER = "#3B3BD6", "#C2447A"


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "gptdynamics", "svg.fonttype": "none"}
    from matplotlib import pyplot

    return pyplot


def _colour(row: dict[str, Any]) -> str:
    return OURS if "(ours)" in row["title"] else OTHER


def draw_cost(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """LDS at the last step against passes; what needs none stands at the left edge."""
    pyplot = _pyplot()
    picture, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        score, passes = row["lds_last"], max(row["passes_fit"] + row["passes_next"] * row["asked"], 100)
        if score["value"] is None:
            continue
        spread = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
        axis.errorbar(passes, score["value"], spread, fmt="o", color=_colour(row), elinewidth=0.7, capsize=2)
        axis.annotate(row["title"], (passes, score["value"]), (5, 4), textcoords="offset points", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlabel("forward-backward passes for all test examples (none: at the left edge)")
    axis.set_ylabel("LDS, last step")
    axis.set_title(title, fontsize=10)
    axis.grid(color="#E5E5E5")
    axis.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(picture)
