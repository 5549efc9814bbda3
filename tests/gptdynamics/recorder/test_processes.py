"""A Trainer in two processes: a batch is what both of them train on, and one of them writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.verify import verify

SCRIPT = Path(__file__).with_name("two_processes.py")


def train(folder: Path, model: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[3]), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(port), str(folder), str(model)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output = process.communicate(timeout=240)[0].decode()
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


def test_a_batch_is_that_of_both_processes_and_errors_are_raised_in_both(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "d" / "manifests").mkdir(parents=True)
    collected = {"settings": {"batch_size": 4}, "base_revision": "x", "planned": {"runs": 1, "unseen_runs": 0}}
    refusing = tmp_path / "d" / "manifests" / "sst2_refused.json"
    refusing.write_text(json.dumps(collected))
    train(tmp_path, tiny_model_folder)

    def left(config: str) -> list[dict[str, Any]]:
        return [json.loads((tmp_path / f"{config}-{rank}.json").read_text()) for rank in range(2)]

    refused = left("sst2_refused")
    assert refused[0]["said"] == refused[1]["said"]
    assert "holds runs of sst2_refused that were not recorded" in refused[0]["said"]
    assert refused[0]["seen"] == refused[1]["seen"] == []
    refusing.unlink()
    both = left("sst2_tiny")
    assert [each["said"] for each in both] == [None, None]
    assert both[0]["weights"] == both[1]["weights"]
    # 14 rows, 2 processes, 2 rows each, 2 micro-batches: twice 8 rows (two of them are taken again), in 2 epochs.
    wanted = []
    for start in range(0, len(both[0]["seen"]), 2):
        wanted.append([at for each in both for micro_batch in each["seen"][start : start + 2] for at in micro_batch])
    read = read_dynamics(tmp_path / "d", "sst2_tiny", "loss")
    assert read.curricula[0] == wanted
    assert [len(batch) for batch in wanted] == [8, 8, 8, 8]
    assert read.step.tolist() == [0, 2, 4]
    assert verify(tmp_path / "d").faults == []
    assert DatasetFolder(tmp_path / "d").finished("sst2_tiny") == ["0000"]
