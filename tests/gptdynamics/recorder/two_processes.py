"""What each of two processes of a real Trainer that is recorded does."""

from __future__ import annotations

import json
import os
from pathlib import Path


def train_as(rank: int, port: int, out: Path, model: Path) -> None:
    """Train two configs, and leave what this process saw of them in `<out>/<config>-<rank>.json`.

    Args:
        rank: 0 or 1.
        port: where the two meet.
        out: the folder of all results.
        model: folder of the base model.
    """
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch
    from transformers import AutoTokenizer

    from gptdynamics.errors import GPTDynamicsError
    from gptdynamics.examples import Example
    from gptdynamics.recorder import DynamicsRecorder, RecordSettings
    from tests.gptdynamics.recorder.training import make_trainer, tokenised

    torch.set_num_threads(1)
    words = ("positive", "negative")
    pool = [Example(at, f"Review: number {at}\nSentiment:", f" {words[at % 2]}", task="sst2") for at in range(14)]
    rows = tokenised(AutoTokenizer.from_pretrained(model), pool)
    ids = {tuple(row["input_ids"]): row["id"] for row in rows}
    for config in ("sst2_refused", "sst2_tiny"):
        trainer = make_trainer(model, rows, out / "t", num_train_epochs=2, ddp_backend="gloo")
        recorder = DynamicsRecorder(out / "d", config, pool, pool[:4], settings=RecordSettings(eval_every=2))
        recorder.attach(trainer)
        said: object = None
        try:
            trainer.train()
        except GPTDynamicsError as error:
            said = str(error)
        seen = [[ids[row] for row in batch] for batch in trainer.seen]
        weights = float(sum(value.double().abs().sum() for value in trainer.model.parameters()))
        (out / f"{config}-{rank}.json").write_text(json.dumps({"seen": seen, "said": said, "weights": weights}))
