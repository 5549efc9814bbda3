"""A static picture of true and predicted trajectories."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptdynamics.errors import DataError
from gptdynamics.outputs import write_output
from simulator.evaluation import Evaluation
from simulator.report.colours import method_colour
from simulator.report.drawn import drawn_at_first
from simulator.report.page import AXIS_TITLES

PANELS = 4


def draw_trajectories(evaluation: Evaluation, path: Path) -> None:
    """Draw four (run, test example) pairs: the truth, every simulator, and the baselines that come near.

    The pairs are those at the 20th, 40th, 60th and 80th percentile of the last method's error.

    Args:
        evaluation: runs and predictions.
        path: an .svg or .png file.

    Raises:
        DataError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DataError("a picture needs matplotlib: pip install 'gptdynamics[figures]'") from error
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "gptdynamics"
    from matplotlib import pyplot

    runs = evaluation.runs
    shown = {name: values for name, values in evaluation.predictions.items() if drawn_at_first(name)}
    squared = np.square(list(shown.values())[-1] - runs.values).mean(1)
    order = np.argsort(squared, axis=None)
    figure, axes = pyplot.subplots(1, PANELS, figsize=(13, 3.4), layout="constrained")
    for panel, one in enumerate(axes):
        run, test = np.unravel_index(order[(panel + 1) * order.size // (PANELS + 1)], squared.shape)
        truth = runs.values[run, :, test]
        one.plot(runs.step, truth, color="black", linewidth=1.8, label="truth")
        for name, values in shown.items():
            one.plot(runs.step, values[run, :, test], color=method_colour(name), linewidth=1.2, label=name)
        moved = truth[len(truth) // 8 :]
        margin = 0.6 * (np.ptp(moved) or 1.0)
        one.set_ylim(max(0.0, moved.min() - margin), moved.max() + margin)
        one.set_title(f"run {runs.runs[run]}, test example {runs.test[test].id}", fontsize=9)
        one.set_xlabel("training step")
        one.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(AXIS_TITLES[runs.metric])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    kind = path.suffix.removeprefix(".").lower() or "svg"
    metadata = {"Date": None} if kind == "svg" else None
    write_output(path, lambda file: figure.savefig(file, format=kind, metadata=metadata))
    pyplot.close(figure)
