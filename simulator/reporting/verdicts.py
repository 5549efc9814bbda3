"""What a result means, in a sentence or two, and the command that comes next; every command ends with them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from simulator.attribution.lds import FEWEST_RETRAININGS
from simulator.evaluation.scoring import Row
from simulator.reporting.numbers import interval_text, number_text

# Shares of the mean curve's squared error that are removed, and what that is in words.
_GRADES = ((0.5, "most"), (0.2, "some"), (0.05, "a little"))

COLUMNS_MEAN = (
    "In brackets: standard deviation over runs and test examples (of Spearman: over runs). Skill: share of the average "
    "training run's squared error that is removed; 1 is perfect, 0 no better than that average, below 0 worse."
)


def next_command(program: str, command: str, *words: Any) -> str:
    """A line that names the next command, quoted for a shell."""
    return f"next: {shlex.join([program, command, *map(str, words)])}"


def share_in_words(share: float) -> str:
    """What it means that a share of the mean curve's squared error is removed."""
    for least, word in _GRADES:
        if share >= least:
            return f"it predicts {word} of the differences between runs"
    if share > -0.05:
        return "it predicts no better than the average run: it knows nothing about single training examples"
    return "it is worse than the average run: do not use it"


def removed_text(share: float | None, runs: int) -> str:
    """A sentence on the share of the mean curve's squared error that fits without a run remove on that run.

    Args:
        share: see `Fitted`.
        runs: of the fit; 0: not known.
    """
    if share is None and 0 < runs < 3:
        return "with so few runs none can be left out to see how well it predicts: record or collect more"
    if share is None:
        return "how much better than the average run it is was not computed"
    amount = f"{share:.0%} of the average run's squared error is removed" if share > 0 else "nothing is removed"
    return f"on runs left out, {amount}: {share_in_words(share)}"


def evaluation_verdict(rows: Sequence[Row]) -> str:
    """Which method is best, and which are no better than the average run."""
    scored = [row for row in rows if row.skill is not None and row.method != "mean_curve"]
    if not scored:
        return "No method could be scored against the average run."
    best = max(scored, key=lambda row: row.skill or 0.0)
    worse = [row.method for row in scored if (row.skill or 0.0) <= 0]
    skill = best.skill or 0.0
    if skill <= 0:
        return f"No method is better than the average run; the nearest is {best.method} (skill {number_text(skill)})."
    sentence = (
        f"Best: {best.method}, which removes {skill:.0%} of the average run's squared error: {share_in_words(skill)}."
    )
    return f"{sentence} No better than the average run: {', '.join(worse)}." if worse else sentence


def counted(count: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def score_verdict(method: str, value: float | None, low: float | None, high: float | None, runs: int) -> str:
    """What a datamodelling score with its 95% interval means."""
    if value is None:
        return f"{method}: no score can be computed: nothing moves, or all changes are predicted alike."
    sentence = f"LDS of {method} over {runs} retrained runs: {interval_text(value, low, high)}."
    if low is None or high is None:
        return f"{sentence} Without an interval, that says little."
    if runs < FEWEST_RETRAININGS:
        return f"{sentence} So few retrainings say little: make at least {FEWEST_RETRAININGS}."
    if low > 0:
        how = "well" if value >= 0.6 else "in part" if value >= 0.3 else "a little"
        return f"{sentence} It ranks changes of the training data {how}; the interval is above zero."
    if high < 0:
        return f"{sentence} It ranks changes of the training data the wrong way round: do not use it."
    return f"{sentence} The interval includes zero: it may not rank changes of the training data at all."
