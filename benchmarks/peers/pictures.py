"""The two pictures: LDS against cost, and what each method can be asked at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.method import QUESTIONS

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


def draw_answers(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A filled dot where a method has an answer, an empty one where it has none."""
    pyplot = _pyplot()
    picture, axis = pyplot.subplots(figsize=(8, 0.32 * len(rows) + 1.2), layout="constrained")
    for height, row in enumerate(reversed(rows)):
        for place, key in enumerate(QUESTIONS):
            filled = key in row["answers"]
            axis.plot(place, height, "o", color=_colour(row), markerfacecolor=_colour(row) if filled else "white")
    axis.set_xticks(range(len(QUESTIONS)), QUESTIONS.values(), fontsize=8)
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(rows)), [row["title"] for row in reversed(rows)], fontsize=8)
    axis.set_xlim(-0.5, len(QUESTIONS) - 0.5)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    picture.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(picture)
