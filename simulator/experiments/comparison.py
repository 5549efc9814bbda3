"""What the pages of experiments share: a table of one score over configs, and ours beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from simulator.experiments.paper_tables import PaperRow
from simulator.reporting.numbers import UNDEFINED, number_text
from simulator.reporting.result import Table

Row = dict[str, Any]
TITLES = {
    "skill": "skill (1: perfect, 0: no better than the mean curve)",
    "spearman": "Spearman at the last step",
    "mse_ratio": "MSE / the mean curve's",
}
# A picture has panels for so many configs.
MOST_PANELS = 6
# Of a picture's vertical axis: what is far worse than the mean curve would flatten all the rest.
SKILL_RANGE = (-1.0, 1.0)

# What methods are, by how their names begin.
METHODS = {
    "persistence": "`persistence` repeats the first value",
    "mean_curve": "`mean_curve` is each test example's average over the training runs",
    "simfluence": "`simfluence_...` is Simfluence",
    "tracin": "`tracin_...`, `grad_dot` and `update_dot` add up gradient products",
    "markov": "`markov_n` is the paper's simulator of order n",
    "memory": "`memory_...` is ours, with the vectors that its name ends in",
    "tangent": "`tangent` is ours, with recorded gradients",
}


def methods_note(rows: Iterable[Row]) -> list[str]:
    """A note on what the methods of a page are; none where rows are of no methods."""
    names = {str(row["method"]) for row in rows if row.get("method")}
    told = [words for start, words in METHODS.items() if any(name.startswith(start) for name in names)]
    return [f"Methods: {'; '.join(told)}."] if told else []


def distinct(rows: Iterable[Row], key: str) -> list[Any]:
    """The values of a key, each once, as they come."""
    return list(dict.fromkeys(row[key] for row in rows))


def grid(
    title: str,
    rows: Iterable[Row],
    cell: Callable[[Row], str],
    keys: Sequence[str] = ("method",),
    column: str = "config",
) -> list[Table]:
    """One table that spreads rows over columns, without the lines that have no figure; none where all lack one.

    Args:
        title: above the table.
        rows: of scores.
        cell: the figure of a row.
        keys: of the first cells of a line, and their headings.
        column: key of the heading of its column.
    """
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        columns[str(row[column])] = None
        lines.setdefault(tuple(str(row[key]) for key in keys), {})[str(row[column])] = cell(row)
    cells = [
        [*first, *(texts.get(name, "") for name in columns)]
        for first, texts in lines.items()
        if set(texts.values()) - {"", UNDEFINED}
    ]
    return [Table(title, [*keys, *columns], cells)] if cells else []


def score_grid(what: str, rows: Iterable[Row], score: str, **shape: Any) -> list[Table]:
    """`grid` of one score, by its name in rows."""
    return grid(f"{what}: {TITLES[score]}", rows, lambda row: score_text(row[score]), **shape)


def score_text(value: float | None) -> str:
    """A score to two decimals; of one far from zero they would say nothing."""
    return number_text(value, decimals=2 if value is None or abs(value) < 10 else 0)


def beside_paper(
    what: str, rows: Iterable[Row], paper: Callable[[Row], PaperRow | None], keys: Sequence[str] = ("method",)
) -> list[Table]:
    """`grid` of our MSE with the paper's in brackets, of those rows that the paper has; none where it has none."""
    theirs = [row | {"paper": reported.mse} for row in rows if row["mse"] is not None and (reported := paper(row))]
    title = f"{what}: MSE here, and in brackets the paper's, of Pythia"
    return grid(title, theirs, lambda row: f"{number_text(row['mse'])} ({number_text(row['paper'])})", keys)
