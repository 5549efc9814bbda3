"""What a method of the table is: how it is fitted, what it can be asked, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.peers.work import Curricula, Work

# What a method may be asked besides which of a run's rows moved a test example's final loss.
QUESTIONS = {
    "order": "other order",
    "rate": "other rates",
    "trajectory": "whole curve",
    "new_row": "unseen row",
    "new_test": "unseen test example",
    "unseen_run": "a run not made",
}


# What a method may keep in memory or on disk at once.
MOST_GIB = 16


class CannotRunError(Exception):
    """A method cannot answer for this run; the message is the reason."""


def check_size(numbers: float, what: str) -> None:
    """Refuse to keep too much.

    Args:
        numbers: how many 32-bit numbers.
        what: their name.

    Raises:
        CannotRunError: they take up more than `MOST_GIB`.
    """
    size = 4 * numbers / 2**30
    if size > MOST_GIB:
        raise CannotRunError(f"{what} take up {size:,.0f} GiB, more than {MOST_GIB}")


@dataclass(frozen=True)
class Fitted:
    """A method that is ready to be asked.

    Attributes:
        ask: for the places of m test examples, the effects `[N, m]` or `[N, m, S]` of N rows on their losses at the end
            or at S measured steps: with the row minus without it.
        predict: for C curricula, the losses `[C, M, S]`; None where only effects can be had, which are added up.
    """

    ask: Callable[[Sequence[int]], np.ndarray]
    predict: Callable[[Curricula], np.ndarray] | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: on the command line and in files.
        title: in tables.
        fit: everything that is done once for a run.
        passes: forward-backward passes of one example, once for a run and for each test example; a forward pass alone
            is a third of one.
        answers: keys of `QUESTIONS`.
        requirements: pinned packages of the method's own environment; none: it runs in the project's.
        tests: how many test examples it is asked of, where all would take hours.
        note: what differs from the usual.
    """

    name: str
    title: str
    fit: Callable[[Work], Fitted]
    passes: Callable[[Work], tuple[float, float]]
    answers: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    tests: int | None = None
    note: str = ""
