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
COLUMNS = (
    "method",
    "LDS, last step",
    f"{OURS} less it",
    "LDS, mean over steps",
    f"{OURS} less it, mean",
    "other orders",
    "QLD, nats",
    "seconds, all",
    "seconds, one more",
    "passes, all",
    "passes, one more",
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
    """A line for each method, the best first."""
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
                score_text(row.get("ahead_mean")),
                score_text(row.get("lds_order"), row["method"] in best["lds_order"]),
                score_text(row.get("qld"), row["method"] in best["qld"]),
                count_text(row["seconds_fit"] + row["seconds_ask"]),
                count_text(row["seconds_next"]),
                count_text(once + each * row["asked"]),
                count_text(each),
            ]
        )
    return lines


def answers_lines(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What each method can be asked at all."""
    lines = [["method", *QUESTIONS.values()]]
    return lines + [[row["title"], *("yes" if key in row["answers"] else "-" for key in QUESTIONS)] for row in rows]


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    parts = ["# Side by side with other methods", "", *_explained(result)]
    for table in result["tables"]:
        rows = table["rows"]
        parts += [f"## {table['config']}, run {table['run']}", "", _described(table), "", markdown(method_lines(rows))]
        parts += ["", *(f"* {row['title']}: {row['note']}." for row in rows if row["note"])]
        parts += [f"* Not run: {title}: {reason}" for title, reason in table["not_run"].items()]
        parts += ["", f"![LDS against cost](peers-cost-{table['config']}.svg)", ""]
    parts += ["## What each can be asked", "", "![What each can be asked](peers-answers.svg)", ""]
    parts += [markdown(answers_lines(result["tables"][0]["rows"])), ""]
    parts += ["## Published elsewhere", "", "LDS of GPT-2 on WikiText, of bergson's leaderboard: another model, "]
    parts[-1] += "other texts, other retrainings. Beside ours it says which order of methods to expect, not more."
    parts += ["", markdown([["method", "LDS"], *([name, f"{value:.2f}"] for name, value in ANCHORS.items())]), ""]
    return "\n".join(parts)


def _described(table: dict[str, Any]) -> str:
    return (
        f"{table['retrainings']} retrainings with a fifth of {table['rows_visited']} rows left out, "
        f"{table['tests']} test examples, measured after {', '.join(map(str, table['step'][1:]))} updates."
    )


def _explained(result: dict[str, Any]) -> list[str]:
    return [
        "Written by `make peers`. A run is made again with rows left out, all else equal. LDS is Spearman's "
        "correlation over the retrainings between predicted and true loss of a test example, in the mean over test "
        "examples; in brackets its 95% interval, retrainings and test examples drawn anew. A difference is of two "
        "scores on the same draws. Bold is a score whose interval lies above all others; often there is none. A dash: "
        "the method cannot answer, or was not asked.",
        "",
        "* Effects of rows on the final loss are added up. A method that gives one number for a row is ranked by it at "
        "every step. Ours and Simfluence simulate the changed run.",
        "* QLD: how much more the loss of a test example rises without the tenth of the rows that a method calls most "
        f"helpful than without a random tenth; {result['qld_tests']} test examples, each a retraining.",
        "* Other orders: LDS of runs that visit the same rows in the same epochs in another order.",
        "* Seconds are of one core, measured, for all test examples together, without making runs. Passes are "
        "forward-backward passes of one example, counted: with making and measuring the runs that a method is fitted "
        "on, or the one run that its checkpoints are of. One more: another test example of the same run.",
        "",
    ]
