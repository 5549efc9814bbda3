"""Metrics defined by a task: calls a user's function of a generated text and its references, and checks the result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from gptdynamics.metrics import Metric


def score_own_metric(metric: Metric, texts: Sequence[str], examples: Sequence[Example]) -> np.ndarray:
    """Values of a metric that a task defines: `[texts]` float32.

    Args:
        metric: with a function.
        texts: generated texts.
        examples: the example of each text.

    Raises:
        SettingsError: the function raises, or returns no finite number within the metric's range; the message names
            task, example and metric.
    """
    return np.array([_score(metric, *pair) for pair in zip(texts, examples, strict=True)], dtype=np.float32)


def _score(metric: Metric, text: str, example: Example) -> np.float32:
    where = f"task {example.task}, test example {example.id}: metric {metric.name}"
    if metric.score is None:
        raise SettingsError(
            f"{where}: the dataset does not store its function. Name the task's Python file with --task-file"
        )
    try:
        result = metric.score(text, example.references)
        value = float(result)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SettingsError(
            f"{where} cannot be computed: {reason:.300}. Correct its function in the task file"
        ) from error
    if not np.isfinite(value):
        raise SettingsError(f"{where} is {value}, not a finite number. Correct its function in the task file")
    if metric.outside(np.array([value])).any():
        raise SettingsError(
            f"{where} is {value:g}, not {metric.allowed}. Correct its function or the metric's range in the task file"
        )
    return np.float32(value)
