"""The paper's own figures: its tables 1 to 4 and 10 to 12, copied from its text."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class PaperRow:
    """A line of one of the paper's tables; None where it gives no figure.

    Attributes:
        table: its number.
        size: of the Pythia model.
        task: or `average`, of raw figures over tasks.
        metric: what was predicted.
        method: `ours` is its GPTfluence, `simfluence` its Simfluence-linear.
        variant: order, or what was unseen; else empty.
    """

    table: str
    size: str
    task: str
    metric: str
    method: str
    variant: str
    mse: float | None
    mse_std: float | None
    mae: float | None
    mae_std: float | None
    spearman: float | None
    spearman_std: float | None


# Which of the paper's methods each of ours is to be read beside.
PAPER_METHODS = {
    "simfluence_linear_adamw": "simfluence",
    "markov_1": "ours",
    "tracin_cp_10": "tracin_cp_10",
    "tracin_cp_all": "tracin_cp_all",
    "grad_dot": "grad_dot",
}


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Every line."""
    text = resources.files("simulator.experiments").joinpath("paper_tables.csv").read_text(encoding="utf-8")

    def figure(text: str) -> float | None:
        return float(text) if text else None

    return tuple(
        PaperRow(*line[:6], *[figure(each) for each in line[6:]])  # type: ignore[arg-type]
        for line in list(csv.reader(text.splitlines()))[1:]
    )


def paper_row(
    table: str, task: str, metric: str, method: str, variant: str = "", size: str = "410m"
) -> PaperRow | None:
    """The line with these, or None.

    Args:
        table, task, metric, variant, size: as in `PaperRow`.
        method: a name of ours or of the paper's.
    """
    theirs = PAPER_METHODS.get(method, method)
    for row in paper_rows():
        if (row.table, row.task, row.metric, row.method, row.variant, row.size) == (
            table, task, metric, theirs, variant, size,
        ):  # fmt: skip
            return row
    return None
