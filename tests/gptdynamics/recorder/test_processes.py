"""A Trainer in two processes: a batch is what both of them train on, and one of them writes."""

from __future__ import annotations

import json
import multiprocessing
import socket
from pathlib import Path
from typing import Any

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.verify import verify
from tests.gptdynamics.recorder.two_processes import train_as


def train(folder: Path, model: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Both are forked from one process that has imported what takes them longest.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers.trainer"])
    processes = [context.Process(target=train_as, args=(rank, port, folder, model)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=240)
            assert process.exitcode == 0
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
