"""The commands of the use cases, from the command line's words to their files and errors."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.dataset import read_dynamics
from simulator.cli import main
from simulator.settings.use_cases import MISLABEL_TITLES
from tests.accessibility import page_faults
from tests.simulator.use_cases.conftest import CONFIG

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gptfluence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quick_markov: None,
    tiny_model_folder: Path,
) -> Command:
    # Datasets name the folder of their base model without its path.
    monkeypatch.chdir(tiny_model_folder.parent)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gptfluence", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def test_influence(gptfluence: Command, memory: str, collected: str, tmp_path: Path) -> None:
    page, record = tmp_path / "page.html", tmp_path / "all.json"
    asked = ("influence", memory, "--dataset", collected, "--test-ids", "1,2", "--json", record, "--output", page)
    status, out, err = gptfluence(*asked)
    assert status == 0, err
    assert "mean over 6 test examples" in out and "test example 2" in out and "jackknife" not in out
    assert "of 12 effects are larger than two standard errors" in out and "On test example 2: " in out
    assert out.splitlines()[-1].startswith("next: gptfluence validate ")
    assert "jackknife" in gptfluence(*asked[:4], "-v")[1]
    assert json.loads(record.read_text())["config"] == CONFIG
    assert "Test example 1" in page.read_text()
    assert gptfluence("influence", memory, "--dataset", collected, "--test-ids", "one")[::2] == (
        1,
        "error: 'one' is not a list of ids such as 3,17\n",
    )


def test_a_dataset_that_the_simulator_was_trained_on_need_not_be_named(
    gptfluence: Command, memory: str, collected: str, tmp_path: Path
) -> None:
    named, unnamed = tmp_path / "named.json", tmp_path / "unnamed.json"
    assert gptfluence("influence", memory, "--dataset", collected, "--json", named)[0] == 0
    assert gptfluence("influence", "--model", memory, "--json", unnamed)[0] == 0
    assert json.loads(named.read_text()) == json.loads(unnamed.read_text())
    moved = tmp_path / "moved"
    shutil.copytree(memory, moved)
    record = json.loads((moved / "training.json").read_text())
    record["settings"]["dataset"] = "gone"
    (moved / "training.json").write_text(json.dumps(record))
    assert gptfluence("simulate", "--model", moved, "--run", "0004")[::2] == (
        1,
        f"error: {moved} was trained on gone, which is not here: name its place with --dataset\n",
    )


def test_mislabel_searches_the_pool_of_a_config(gptfluence: Command, collected: str, tmp_path: Path) -> None:
    # It has one config, so that need not be said.
    asked = ("mislabel", collected, "--runs", 6, "--workers", 1, "--output", tmp_path / "found")
    status, out, err = gptfluence(*asked)
    assert status == 0, err
    said = "mini_sentiment: 20 rows are searched (--pool) with 6 runs (--runs) on 10 of them each: 6 updates (batch 3, "
    assert said in out
    lines = (tmp_path / "found" / "suspects.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["id"] for line in lines} == set(range(20))


def test_simulate_a_run_and_a_file(gptfluence: Command, memory: str, collected: str, tmp_path: Path) -> None:
    recorded, own = tmp_path / "recorded.json", tmp_path / "own.json"
    status, out, err = gptfluence("simulate", memory, "--dataset", collected, "--run", "0004", "--json", recorded)
    assert status == 0, err
    found, fact = json.loads(recorded.read_text()), read_dynamics(collected, CONFIG).take([4])
    np.testing.assert_array_equal(np.array(found["measured"]), fact.values[0])
    assert found["measured_step"] == fact.step.tolist()
    # Each line of predicted values has one of measured values below: the mean and 6 test examples.
    lines = [re.findall(r"[\w.]+", line) for line in out.splitlines()]
    measured = [line[1:] for line in lines if line[:1] == ["measured"]]
    assert len(measured) == 7 and measured[0][-1] == f"{fact.values[0, :, -1].mean():.3f}"
    assert [line[-1] for line in measured[1:]] == [f"{value:.3f}" for value in fact.values[0, :, -1]]
    batches = tmp_path / "curriculum.json"
    batches.write_text(json.dumps([[0, 1, 2]] * 8))
    status, out, err = gptfluence("simulate", memory, "--curriculum", batches, "--interval", "0.5", "--json", own)
    assert status == 0, err
    found = json.loads(own.read_text())
    assert f"[{found['low'][0][-1]:.3f}, {found['high'][0][-1]:.3f}]" in out
    assert len(found["values"]) == 6 and len(found["values"][0]) == 9
    assert found["beyond"] == ["3 rows, trained on runs of at least 12", "a row visited 8 times, trained on at most 2"]
    assert all(
        low <= value <= high
        for low, value, high in zip(found["low"][0], found["values"][0], found["high"][0], strict=True)
    )
    assert json.loads(recorded.read_text())["test_id"] == list(range(6))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON ("),
        ("[]", "the curriculum has no steps"),
        ("[[1], []]", "step 2 must be a list of ids, not empty"),
        ('{"curriculum": [[1]], "rate": 1}', "and nothing else"),
        ('{"curriculum": [[1]], "learning_rate": ["a"]}', "learning_rate must be a list of numbers"),
        ("[[1], [2]]", "the curriculum has 2 steps, the learning rates 8"),
        ("[[99]]", "error"),
    ],
)
def test_curricula_that_do_not_fit(
    gptfluence: Command, memory: str, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "curriculum.json"
    path.write_text(content)
    status, _, err = gptfluence("simulate", memory, "--curriculum", path)
    assert status == 1 and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_simulate_needs_something_to_simulate(gptfluence: Command, memory: str) -> None:
    assert gptfluence("simulate", memory)[::2] == (
        1,
        "error: give a curriculum file, or a dataset with the run to simulate\n",
    )


def test_validate_says_what_it_would_train(gptfluence: Command, memory: str, collected: str, tmp_path: Path) -> None:
    asked = ("validate", memory, "--dataset", collected, "--output", tmp_path, "--each", 3, "--test-examples", 4)
    status, out, err = gptfluence(*asked, "--dry-run")
    assert status == 0, err
    assert out.startswith("12 trainings of 8 updates, 9 measurements of 4 examples each; about ")
    assert out.endswith(" minutes of one core\n") and not list(tmp_path.iterdir())


def test_select_says_what_it_would_train(gptfluence: Command, memory: str, collected: str, tmp_path: Path) -> None:
    asked = ("select", memory, "--dataset", collected, "--output", tmp_path, "--count", 4, "--seeds", 2, "--random", 3)
    status, out, err = gptfluence(*asked, "--dry-run")
    assert status == 0, err
    assert out.startswith("13 trainings of 8 updates; about ") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["validate", "select"])
def test_runs_that_cannot_be_made_again_are_refused_before_a_simulator_is_trained(
    gptfluence: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = gptfluence(name, "gptdynamics", "--config", "sst2_nano", "--output", "out", "--dry-run")
    assert status == 1 and "has no text, and training again needs it" in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small(tiny_model_folder: Path, tmp_path: Path) -> list[object]:
    return [
        "mislabel", "mini_sentiment", "--base-model", tiny_model_folder, "--rows", 16, "--batch-size", 4, "--epochs", 1,
        "--runs", 6, "--workers", 1, "--output", tmp_path / "found",
    ]  # fmt: skip


def test_mislabel_lists_suspects_of_rows_as_they_are(gptfluence: Command, small: list[object], tmp_path: Path) -> None:
    status, out, err = gptfluence(*small)
    assert status == 0, err
    assert "likelier" in out and "another label is likelier" in out
    assert out.splitlines()[-1].startswith("next: gptfluence mislabel mini_sentiment ")
    with (tmp_path / "found" / "suspects.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 17)]
    assert "Ordered by mean_rank (given labels predicted from other rows: ridge on texts " in " ".join(out.split())
    scores = [float(row["mean_rank"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and "flipped" not in rows[0]
    lines = (tmp_path / "found" / "suspects.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["id"] for line in lines} == set(range(16))
    assert not (tmp_path / "found" / "mislabel.json").exists()


def test_mislabel_compares_rankings_of_flipped_labels_and_goes_on_with_more_retrainings(
    gptfluence: Command, small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*small, "--flip", 0.4, "--test-examples", 10, "--retrainings"]
    status, out, err = gptfluence(*asked, 2, "--dry-run")
    assert status == 0, err
    assert "6 runs of 2 updates" in out and "34 trainings of 4 updates" in out
    assert gptfluence(*asked, 1)[0] == 0
    before = json.loads((tmp_path / "found" / "mislabel.json").read_text())
    # Scores are there: nothing is fitted again.
    monkeypatch.setattr("simulator.use_cases.mislabel.score_examples", None)
    status, out, err = gptfluence(*asked, 2)
    assert status == 0, err
    record = json.loads((tmp_path / "found" / "mislabel.json").read_text())
    for old, new in zip(before["rows"], record["rows"], strict=True):
        assert (old["method"], old["found_area"]) == (new["method"], new["found_area"])
        if "accuracy" in old:
            assert [each[:1] for each in new["accuracy"].values()] == list(old["accuracy"].values())
    assert page_faults(tmp_path / "found" / "mislabel.html") == []
    rows = {row["method"]: row for row in record["rows"]}
    # Kernels are of recorded runs.
    assert set(rows) == set(MISLABEL_TITLES) - {"kernel_harm"}
    assert set(rows["memory_left_out"]["accuracy"]) == {"0.0", "0.1", "0.2", "0.5"}
    # Nothing corrected is the same training for every ranking.
    assert len({tuple(rows[name]["accuracy"]["0.0"]) for name in rows if "accuracy" in rows[name]}) == 1
    assert {name for name in rows if "accuracy" not in rows[name]} == {"measured_left_out", "mean_rank"}
    # The bars of the second plot are what seeds differ by.
    drawn = {series["label"]: series["spread"] for series in record["figures"][0]["panels"][1]["series"]}
    np.testing.assert_allclose(
        drawn[MISLABEL_TITLES["random"]], [np.std(each) for each in rows["random"]["accuracy"].values()], atol=1e-6
    )
    suspects = (tmp_path / "found" / "suspects.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)["flipped"] for line in suspects) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mini_triples",), "has no labels that could be wrong"),
        (("mini_sentiment", "--flip", "1"), "flip=1.0 must be at least 0 and below 1"),
        (("mini_sentiment", "--rows", "6", "--batch-size", "4"), "6 rows are too few: each run is on half of them"),
        (("mini_sentiment", "--rows", "1"), "1 rows are too few"),
        (("nowhere", "--config", "a_b"), "nowhere: no such dataset folder"),
        (("ada/own", "--config", "a_b", "--data", "rows"), "leave out --data and --base-model"),
        (("mini_sentiment", "--runs", "3"), "runs=3 must be at least 6"),
        (("mini_sentiment", "--by", "random"), "by='random' must be one of"),
    ],
)
def test_mislabel_refuses(gptfluence: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    status, _, err = gptfluence("mislabel", *arguments, "--output", tmp_path)
    assert status == 1 and message in err and err.count("\n") == 1
