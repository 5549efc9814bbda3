"""The static picture of an evaluation."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from simulator.evaluation import EvaluateSettings, evaluate
from simulator.reporting.prediction_figures import draw_trajectories


def test_a_picture_is_drawn_and_is_the_same_each_time(dataset: Path, trained: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figures extra is not installed")
    settings = EvaluateSettings(str(dataset), "mini_sentiment_nano", models=(trained["memory"],))
    evaluation = evaluate(settings)
    first, second = tmp_path / "new" / "a.svg", tmp_path / "b.svg"
    draw_trajectories(evaluation.runs, evaluation.predictions, first)
    draw_trajectories(evaluation.runs, evaluation.predictions, second)
    assert first.read_bytes() == second.read_bytes()
    drawn = first.read_text(encoding="utf-8")
    ElementTree.fromstring(drawn)
    assert "training step" in drawn
    assert "memory_label" in drawn
