"""The card of a base model of our own, and the picture of its training curve."""

from __future__ import annotations

import json
from pathlib import Path

from gptdynamics.atomic import write_text
from hub_cards import render


def draw_curve(log: dict, path: Path) -> None:
    """Training loss against tokens, as an SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gptdynamics"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot([p["tokens"] / 1e6 for p in log["curve"]], [p["loss"] for p in log["curve"]], color="#0072B2")
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def write_card(folder: Path) -> None:
    """Write README.md and curve.svg from `pretraining.json`."""
    log = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    draw_curve(log, folder / "curve.svg")
    write_text(folder / "README.md", render("base_model_card.md.jinja", log=log, name=folder.name))
