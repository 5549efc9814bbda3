"""Scoring every method on the same held-out runs: `score(methods, runs)` gives the rows that everything else shows."""

from simulator.evaluation.evaluate import evaluate
from simulator.evaluation.evaluation import Evaluation, write_rows
from simulator.evaluation.held_out import Unseen
from simulator.evaluation.scoring import Method, Row, score, score_prediction
from simulator.settings.evaluate import EvaluateSettings

__all__ = [
    "EvaluateSettings",
    "Evaluation",
    "Method",
    "Row",
    "Unseen",
    "evaluate",
    "score",
    "score_prediction",
    "write_rows",
]
