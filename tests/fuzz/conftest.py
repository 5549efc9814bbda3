"""A dataset, a simulator, and whatever else is read from outside, made once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.recorder.checkpoint import NAME, Partial, save_partial
from simulator.training import TrainSettings, train_and_save
from simulator.training.checkpoints import Checkpoints
from tests.gptdynamics.conftest import write_authors_run
from tests.gptdynamics.exchange.authors_layout import RTE, write_lines

CONFIG = "mini_sentiment_nano"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of two updates, with gradients."""
    root = tmp_path_factory.mktemp("fuzz") / "dataset"
    settings = RunSettings(
        CONFIG, 1e-3, pool_size=8, subset=4, batch_size=2, epochs=1, test_examples=4, gradients="test",
        gradient_width=16,
    )  # fmt: skip
    collect(CollectSettings(Plan("fuzz", (PlanEntry(settings, 6),)), root, workers=1, device="cpu"))
    return root


@pytest.fixture(scope="session")
def model_folder(dataset: Path) -> Path:
    """A simulator that was trained on them."""
    folder = dataset.parent / "model"
    train_and_save(TrainSettings(str(dataset), CONFIG, encoder="label", bands=False), folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(dataset: Path) -> Path:
    """What an interrupted training of a simulator, and an interrupted recording, leave behind."""
    folder = dataset.parent / "checkpoints"
    kept = Checkpoints(folder, {"seed": 1, "config": CONFIG})
    kept.save(
        "setting-00", {"weights": torch.arange(12.0), "random": torch.arange(5, dtype=torch.uint8)}, {"update": 3}
    )
    partial = Partial(
        config=CONFIG, run="0000", recorded={"eval_every": 1}, base_revision="x", curriculum=[[0, 1], [2, 3]],
        rates=[1e-3, 5e-4], step=[0, 1, 2], generation_step=[], failure="",
        values={"loss": np.arange(12, dtype=np.float32).reshape(4, 3)},
    )  # fmt: skip
    save_partial(folder / NAME, partial)
    return folder


@pytest.fixture(scope="session")
def texts(dataset: Path) -> Path:
    """Rows, a plan, a task file, a curriculum, a table of figures."""
    folder = dataset.parent / "texts"
    (folder / "own").mkdir(parents=True)
    for part in ("train", "eval"):
        rows = [
            {"text": f"Phrase {at} of {part}.", "label": ("good", "bad")[at % 2], "source_id": at} for at in range(6)
        ]
        (folder / "own" / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "plan.toml").write_text(PLAN)
    (folder / "task.py").write_text(TASK)
    curriculum = {"curriculum": [[0, 1], [2, 3]], "learning_rate": [1e-3, 5e-4], "initial": [1.0, 2.0, 3.0, 4.0]}
    (folder / "curriculum.json").write_text(json.dumps(curriculum))
    return folder


@pytest.fixture(scope="session")
def release(dataset: Path) -> Path:
    """A release of the paper authors' layout with two runs."""
    root = dataset.parent / "release"
    for seed in (1, 2):
        write_authors_run(root / RTE.format(seed), seed, {"loss": range(4)}, 4)
    for name, count in (("sft_tasks/rte/rte_0_39_train.json", 40), ("sft_tasks/rte/rte_0_3_eval.json", 4)):
        write_lines(root / name, [{"id": at, "input": f"Row {at}: yes"} for at in range(count)])
    return root


PLAN = """name = "mine"
[defaults]
learning_rate = 1e-3
runs = 3
seed = 1
[[config]]
config = "mini_sentiment_nano"
steps = 4
base_model = "nano"
[[config]]
config = "mini_triples_nano"
unseen_runs = 1
lora_rank = 2
"""
TASK = '''from gptdynamics.tasks import HubSource, Task


class Own(Task):
    """Sentiment."""

    name = "own"
    fields = {"text": str, "label": str}
    plain = "Phrase: {text}\\nLabel:"
    instructions = ("Is this good or bad? {text}\\nAnswer:", "{text}\\nGood or bad?")
    labels = (" good", " bad")
    scenario = "finetune"
    hub = HubSource("owner/name", None, {"train": "train", "eval": "test"}, "mit")

    def target(self, row):
        return f" {row['label']}"
'''
