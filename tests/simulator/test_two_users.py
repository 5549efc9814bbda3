"""The release goes from one user to another and back over the loopback Hub, in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_dataset
from huggingface_hub import HfApi, snapshot_download

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.hub.push import PushOptions, push
from simulator.evaluation import EvaluateSettings, evaluate
from simulator.hub.push import push_simulator
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training import TrainSettings, train_simulator
from tests.hub.server import Hub
from tests.simulator.conftest import write_runs

CONFIG = "mini_sentiment_nano"


def runs_of(id: str, cache: Path) -> list[str]:
    splits = load_dataset(id, CONFIG, cache_dir=str(cache))
    return sorted({run for rows in splits.values() for run in rows["run"]})


def test_runs_and_a_simulator_go_to_somebody_else_and_runs_come_back(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_runs(tmp_path / "own", CONFIG, "nano", 6)
    push(tmp_path / "own", "ada/dynamics")
    settings = TrainSettings("ada/dynamics", CONFIG, encoder="label", bands=False)
    train_simulator(settings).save(tmp_path / "simulator", settings)
    push_simulator(tmp_path / "simulator", "ada/simulator")

    monkeypatch.setenv("HF_TOKEN", "hf_ben_write")
    assert runs_of("ada/dynamics", tmp_path / "cache") == [f"{at:04}" for at in range(6)]
    there = EvaluateSettings("ada/dynamics", CONFIG, models=("ada/simulator",), baselines=("mean_curve",))
    here = replace(there, dataset=str(tmp_path / "own"), models=(str(tmp_path / "simulator"),))
    rows = [[replace(row, model=None) for row in evaluate(each).rows] for each in (there, here)]
    assert rows[0] == rows[1]
    theirs = GPTfluenceSimulator.from_pretrained("ada/simulator")
    curriculum = read_dynamics("ada/dynamics", CONFIG, "loss").curricula[0]
    mine = GPTfluenceSimulator.from_pretrained(tmp_path / "simulator")
    assert (theirs.simulate(curriculum) == mine.simulate(curriculum)).all()

    copy = Path(snapshot_download("ada/dynamics", repo_type="dataset", local_dir=tmp_path / "copy"))
    write_runs(copy, CONFIG, "nano", 8)
    assert verify(copy).ok
    proposed = push(copy, "ada/dynamics", PushOptions(create_pr=True))
    assert proposed.runs == [f"{CONFIG}/0006", f"{CONFIG}/0007"]
    push(copy, "ben/dynamics")

    monkeypatch.setenv("HF_TOKEN", "hf_ada_write")
    HfApi().merge_pull_request("ada/dynamics", 1, repo_type="dataset")
    for id in ("ada/dynamics", "ben/dynamics"):
        assert runs_of(id, tmp_path / "cache") == [f"{at:04}" for at in range(8)]
