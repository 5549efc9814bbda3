"""The README's headline: what memory removes of the mean curve's error on the bundled rte_nano."""

from __future__ import annotations

import re
from pathlib import Path

import simulator

README = Path(__file__).resolve().parents[1] / "README.md"


def printed_skill(method: str) -> float:
    """The last number of a method's row in the README's table."""
    (row,) = re.findall(rf"^\| {re.escape(method)} \|.*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    return float(row.rstrip(" |").rsplit("|", 1)[-1].strip(" *"))


def test_the_headline_is_what_the_bundled_runs_give() -> None:
    model = simulator.train("gptdynamics", "rte_nano", encoder="gradient", bands=False).model
    scores = simulator.evaluate("gptdynamics", "rte_nano", models=model, baselines=["mean_curve", "persistence"])
    skill = {row.method: row.skill for row in scores.rows}
    printed = {
        "mean_curve": "mean curve of the training runs",
        "memory_gradient": "memory, gradient vectors",
    }
    for method, name in printed.items():
        value = skill[method]
        assert value is not None
        assert abs(value - printed_skill(name)) <= 0.02, method
