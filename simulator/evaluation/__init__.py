"""Scoring every method on the same held-out runs."""

from simulator.evaluation.evaluate import EvaluateSettings, Evaluation, evaluate, write_rows
from simulator.evaluation.scoring import Row, score

__all__ = ["EvaluateSettings", "Evaluation", "Row", "evaluate", "score", "write_rows"]
