"""The report: one self-contained HTML page with the evaluation table and the trajectories."""

from __future__ import annotations

from simulator.report.colours import METHOD_COLOURS, method_colour
from simulator.report.evaluation_report import report_evaluation
from simulator.report.figure import draw_trajectories
from simulator.report.page import Curve, write_report
from simulator.report.plotted import plot_evaluation

__all__ = [
    "METHOD_COLOURS",
    "Curve",
    "draw_trajectories",
    "method_colour",
    "plot_evaluation",
    "report_evaluation",
    "write_report",
]
