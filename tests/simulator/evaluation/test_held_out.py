"""Scores on what training did not show."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.dataset import read_dynamics
from gptdynamics.errors import SettingsError
from simulator.evaluation import EvaluateSettings, evaluate
from simulator.evaluation.held_out import Unseen, some_tests, split_tests
from simulator.evaluation.scoring import score_prediction
from simulator.training import TrainSettings, train_simulator

CONFIG = "mini_sentiment_nano"


@pytest.mark.parametrize(
    ("count", "share", "kept"), [(6, 0.5, [1, 3, 5]), (5, 0.2, [4]), (4, 0.0, []), (3, 0.9, [1, 2])]
)
def test_test_examples_are_kept_back_evenly(count: int, share: float, kept: list[int]) -> None:
    assert split_tests(count, share) == ([at for at in range(count) if at not in kept], kept)


@pytest.fixture(scope="module")
def half(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a simulator that was trained on every other test example."""
    settings = TrainSettings(str(dataset), CONFIG, encoder="label")
    runs = read_dynamics(dataset, CONFIG, "loss")
    folder = tmp_path_factory.mktemp("half")
    train_simulator(settings, runs=some_tests(runs, [0, 2, 4])).save(folder, settings)
    return str(folder)


def test_unseen_test_examples_are_scored_against_the_mean_change_of_the_seen(dataset: Path, half: str) -> None:
    settings = EvaluateSettings(str(dataset), CONFIG, models=(half,))
    found = evaluate(settings, unseen=Unseen(0.5))
    assert [row.method for row in found.rows] == ["persistence", "mean_curve", "memory_label"]
    runs = read_dynamics(dataset, CONFIG, "loss")
    held_out, seen = runs.split("test"), runs.split("train", "validation").values[:, [0, 2, 4]]
    truth = held_out.values[:, [1, 3, 5]]
    change = np.array([seen[..., step].mean() - seen[..., 0].mean() for step in range(truth.shape[-1])])
    reference = truth[..., :1] + change
    np.testing.assert_allclose(found.predictions["mean_curve"], reference, rtol=1e-5)
    predicted = found.predictions["memory_label"]
    assert found.rows[2].skill == score_prediction(predicted, truth, found.predictions["mean_curve"], 1).skill
    assert found.rows[1].skill == 0
    assert (found.rows[2].examples, found.rows[2].split) == (3, "test")


def test_a_model_that_was_trained_on_them_is_refused(dataset: Path, trained: dict[str, str]) -> None:
    settings = EvaluateSettings(str(dataset), CONFIG, models=(trained["memory"],))
    with pytest.raises(SettingsError, match="was trained on 3 of the 3 test examples kept back"):
        evaluate(settings, unseen=Unseen(0.5))


def test_without_models_they_are_trained_on_the_others(
    dataset: Path, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = [TrainSettings(str(dataset), CONFIG, encoder="label")]
    # The package's attribute of this name is the function.
    module = sys.modules["simulator.evaluation.evaluate"]
    monkeypatch.setattr(module, "simulators_to_train", lambda settings, runs: only)
    found = evaluate(EvaluateSettings(str(dataset), CONFIG), unseen=Unseen(0.5))
    given = evaluate(EvaluateSettings(str(dataset), CONFIG, models=(half,)), unseen=Unseen(0.5))
    np.testing.assert_allclose(found.predictions["memory_label"], given.predictions["memory_label"], rtol=1e-5)


def test_runs_on_unseen_pool_rows_are_needed(dataset: Path, trained: dict[str, str]) -> None:
    settings = EvaluateSettings(str(dataset), CONFIG, models=(trained["memory"],))
    with pytest.raises(SettingsError, match="no runs on unseen pool rows: collect with --unseen-runs"):
        evaluate(settings, unseen=Unseen(split="test_unseen"))


@pytest.mark.parametrize(
    ("tests", "split", "message"),
    [
        (1.0, "test", "unseen_tests=1.0"),
        (-0.1, "test", "unseen_tests=-0.1"),
        (0.0, "train", "must be one of test, test_u"),
    ],
)
def test_what_makes_no_sense_is_refused(tests: float, split: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Unseen(tests, split)


def test_a_single_test_example_cannot_be_split(dataset: Path) -> None:
    runs = read_dynamics(dataset, CONFIG, "loss")
    share = 0.9 / len(runs.test)
    with pytest.raises(SettingsError, match="cannot be split by"):
        evaluate(EvaluateSettings(str(dataset), CONFIG), unseen=Unseen(share))
