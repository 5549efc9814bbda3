"""The sentences that commands end with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.evaluation.scoring import Row
from simulator.reporting.verdicts import evaluation_verdict, next_command, removed_text, score_verdict

ROW = Row("memory", None, "a_nano", "loss", "test", 0.1, 0, 0.1, 0, 0.5, 0, 0.6, None, 2, 4, 0)


@pytest.mark.parametrize(
    ("share", "runs", "said"),
    [
        (0.62, 9, "62% of the average run's squared error is removed: it predicts most of the differences"),
        (0.1, 9, "10% of the average run's squared error is removed: it predicts a little"),
        (0.01, 9, "no better than the average run"),
        (-1.5, 9, "nothing is removed: it is worse than the average run"),
        (None, 2, "with so few runs none can be left out to see"),
        (None, 9, "was not computed"),
    ],
)
def test_shares_in_words(share: float | None, runs: int, said: str) -> None:
    assert said in removed_text(share, runs)


def test_the_best_method_and_those_that_are_no_better_than_the_average() -> None:
    rows = [ROW, replace(ROW, method="mean_curve", skill=0.0), replace(ROW, method="markov_1", skill=-0.4)]
    said = evaluation_verdict(rows)
    assert "Best: memory, which removes 60%" in said and said.endswith("No better than the average run: markov_1.")
    assert "No method is better" in evaluation_verdict(rows[1:])
    assert "could be scored" in evaluation_verdict(rows[1:2])


def test_an_interval_with_zero_shows_nothing() -> None:
    assert "may not rank" in score_verdict("tangent", 0.2, -0.1, 0.4, 30)
    assert "ranks changes of the training data well" in score_verdict("tangent", 0.8, 0.6, 0.9, 30)
    assert "wrong way" in score_verdict("tangent", -0.5, -0.8, -0.1, 30)
    assert "So few retrainings say little" in score_verdict("tangent", 1.0, 1.0, 1.0, 3)
    assert "no score" in score_verdict("tangent", None, None, None, 30)


def test_the_next_command_is_quoted() -> None:
    assert next_command("gptfluence", "influence", "my runs", "--top", 3) == (
        "next: gptfluence influence 'my runs' --top 3"
    )
