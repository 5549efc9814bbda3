"""Which score orders the list of suspected labels: the one that knows most of the labels, as far as can be seen.

Which labels are wrong is not known. What can be seen without that is how many of the given labels a score predicts from
other rows; most given labels are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gptdynamics.errors import SettingsError
from simulator.settings.use_cases import AUTO, MEAN_RANK
from simulator.use_cases.mislabel_scores import likelier_labels, ridge_left_out


@dataclass(frozen=True)
class Signal:
    """A score of N rows, and what it knows of their labels.

    Attributes:
        name: of the score.
        what: whose prediction it is, for sentences.
        score: `[N]`, high where a label seems wrong.
        right: `[N]` booleans: of the row, its own label is predicted from other rows; None: it predicts no labels.
    """

    name: str
    what: str
    score: np.ndarray
    right: np.ndarray | None = None


@dataclass(frozen=True)
class Order:
    """What the list of suspects is ordered by.

    Attributes:
        by: name of the score.
        why: a sentence without its end.
    """

    by: str
    why: str


def ridge_signal(vectors: np.ndarray, labels: Sequence[str]) -> tuple[Signal, tuple[str, ...]]:
    """The signal of the other rows' labels, and the label `[N]` that they speak for; arguments of `ridge_left_out`."""
    likelier = likelier_labels(vectors, labels)
    right = np.array([one == other for one, other in zip(likelier, labels, strict=True)])
    return Signal("ridge_left_out", "ridge on texts", ridge_left_out(vectors, labels), right), tuple(likelier)


def mean_rank(signals: Sequence[Signal]) -> dict[str, np.ndarray]:
    """The mean of ranks from 0 to 1 by several signals, `[N]`, by its name; of a single one nothing."""
    from scipy.stats import rankdata

    if len(signals) < 2:
        return {}
    return {MEAN_RANK: np.mean([(rankdata(each.score) - 1) / max(1, len(each.score) - 1) for each in signals], axis=0)}


def settle_order(
    by: str, signals: Sequence[Signal], scores: dict[str, np.ndarray], labels: Sequence[str], unlabelled: str = ""
) -> Order:
    """The order that is asked for; else that by the signal which predicts most of the given labels.

    Where it is no more than a standard error ahead of another one, of the difference on the same rows, or of naming the
    commonest label every time, it is the mean rank of all signals.

    Args:
        by: `auto`, or one of `scores`.
        signals: the candidates, at least one.
        scores: `[N]` by name, all that there are.
        labels: of the N rows.
        unlabelled: why they cannot be compared, so that no signal predicts them; empty: they can.

    Raises:
        SettingsError: there is no such score here.
    """
    if by != AUTO:
        if by not in scores:
            raise SettingsError(f"by={by!r} is not available here: give {AUTO} or one of {', '.join(scores)}")
        return Order(by, f"as --by {by} asks")
    if unlabelled:
        return Order(signals[0].name, f"{unlabelled}, so none can be called likelier")
    judged = {each.name: each.right for each in signals if each.right is not None}
    common = np.array(labels) == Counter(labels).most_common(1)[0][0]
    shares = [f"{each.what} {each.right.mean():.0%}" for each in signals if each.right is not None]
    why = f"given labels predicted from other rows: {', '.join(shares)}; always the commonest {common.mean():.0%}"
    best = max(judged, key=lambda name: judged[name].mean())
    if not _is_ahead(judged[best], common):
        why += ": none is clearly above that, so expect little of any order"
    elif all(_is_ahead(judged[best], judged[name]) for name in judged if name != best):
        return Order(best, why)
    return Order(MEAN_RANK if len(signals) > 1 else best, why)


def _is_ahead(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether more of `one` `[N]` is true, by more than a standard error."""
    difference = one.astype(float) - other.astype(float)
    return float(difference.mean()) > float(difference.std()) / np.sqrt(len(difference))
