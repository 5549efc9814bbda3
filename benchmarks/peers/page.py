"""The table as a page in Markdown, beside what bergson's leaderboard says of GPT-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.method import QUESTIONS
from benchmarks.peers.table import OURS, best_of
from simulator.reporting.numbers import interval_text

# GPT-2 on WikiText, as bergson publishes it.
ANCHORS = {
    "MAGIC": 0.93,
    "MAGIC, another seed": 0.83,
    "EK-FAC + ASTRA": 0.64,
    "EK-FAC": 0.45,
    "TrackStar": 0.27,
    "BM25": 0.22,
    "Grad-Dot": 0.16,
    "TRAK": 0.14,
}
NOT_ASKED = "not asked for this time"
COLUMNS = (
    "method",
    "LDS, last step",
    f"{OURS} minus it",
    "LDS, mean over steps",
    "LDS of other orders",
    "QLD, nats",
    "seconds",
    "passes",
)


def score_text(score: dict[str, Any] | None, bold: bool = False) -> str:
    """A score with its interval; a dash where there is none."""
    if not score or score["value"] is None:
        return "-"
    text = interval_text(score["value"], score["low"], score["high"])
    return f"**{text}**" if bold else text


def count_text(value: float) -> str:
    """A count or seconds in a few digits."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line are the headings and whose first column are names."""
    align = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], align, *lines[1:]))


def method_lines(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line for each method, the best first; without the columns that nothing has a figure for."""
    best = {name: best_of(rows, name) for name in ("lds_last", "lds_mean", "lds_order", "qld")}
    lines = [list(COLUMNS)]
    for row in sorted(rows, key=lambda row: -(row["lds_last"]["value"] or -1)):
        few = f", {row['asked']} test examples" if row["asked"] < max(each["asked"] for each in rows) else ""
        once, each = row["passes_fit"], row["passes_next"]
        lines.append(
            [
                row["title"] + few,
                score_text(row["lds_last"], row["method"] in best["lds_last"]),
                score_text(row.get("ahead_last")),
                score_text(row["lds_mean"], row["method"] in best["lds_mean"]),
                score_text(row.get("lds_order"), row["method"] in best["lds_order"]),
                score_text(row.get("qld"), row["method"] in best["qld"]),
                count_text(row["seconds_fit"] + row["seconds_ask"]),
                count_text(once + each * row["asked"]),
            ]
        )
    filled = [place for place in range(len(COLUMNS)) if any(line[place] != "-" for line in lines[1:])]
    return [[line[place] for place in filled] for line in lines]


def answers_lines(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What each method can be asked at all."""
    lines = [["method", *QUESTIONS.values()]]
    return lines + [[row["title"], *("yes" if key in row["answers"] else "-" for key in QUESTIONS)] for row in rows]


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    parts = ["# Compared with other tools", "How well do published attribution methods rank the same real retrainings?"]
    for table in result["tables"]:
        rows = table["rows"]
        parts.append(f"![LDS against cost, {table['config']}](peers-cost-{table['config']}.svg)")
        parts.append(f"**{table['config']}, run {table['run']}: {_described(table)}**")
        parts.append(markdown(method_lines(rows)))
        parts.append("; ".join(f"{row['title']}: {row['note']}" for row in rows if row["note"]) + ".")
        if table["not_run"]:
            reasons = table["not_run"].items()
            parts.append(f"Not run: {', '.join(name + _because(reason) for name, reason in reasons)}.")
    parts += ["**What each method can be asked**", markdown(answers_lines(result["tables"][0]["rows"]))]
    parts.append("**LDS published elsewhere: GPT-2 on WikiText, from bergson's leaderboard**")
    parts.append(markdown([list(ANCHORS), [f"{value:.2f}" for value in ANCHORS.values()]]))
    return "\n\n".join([*parts, _explained(result)]) + "\n"


def _because(reason: str) -> str:
    return "" if reason == NOT_ASKED else f" ({reason})"


def _described(table: dict[str, Any]) -> str:
    device, processes = table.get("device", "cpu"), table.get("processes", 1)
    where = "" if device == "cpu" and processes == 1 else f", on {device}, {processes} methods side by side"
    return (
        f"{table['retrainings']} retrainings without a fifth of {table['rows_visited']} rows, {table['tests']} test "
        f"examples, measured after {', '.join(map(str, table['step'][1:]))} updates{where}"
    )


def _explained(result: dict[str, Any]) -> str:
    notes = [
        "LDS is Spearman's correlation over the retrainings between predicted and true loss of a test example, "
        "averaged over test examples: 1 is a perfect ranking, 0 is chance. In brackets: its 95% interval. Bold: "
        "better than every other method, with intervals that do not overlap. A dash: the method cannot answer, or "
        "was not asked.",
        "A method that gives effects of single rows predicts a retraining by their sum. If it gives one number for a "
        "row, that number stands for every step. Ours, markov and Simfluence simulate the changed run.",
        "LDS of other orders: over runs that train on the same rows in another order within each epoch.",
        "Seconds are those measured to fit a method and ask it about all test examples, on one core where no device is "
        "named; training the runs is not in them. Passes are counted forward-backward passes of one example; they "
        "include training and measuring the runs that a method is fitted on.",
        "The leaderboard's figures are of another model, other texts and other retrainings: compare only which "
        "method is ahead of which.",
    ]
    if any(row.get("qld") for table in result["tables"] for row in table["rows"]):
        notes.append(
            "QLD: how much more a test example's loss rises without the tenth of the rows that a method calls most "
            f"helpful than without a random tenth; {result['qld_tests']} test examples, each a retraining."
        )
    return "\n".join(f"* {note}" for note in notes) + "\n\nMade by `make peers`."
