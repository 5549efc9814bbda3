"""Runs that were really collected on the tiny base model, and simulators of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.plans import Plan, PlanEntry
from simulator.training import TrainSettings, train_simulator

CONFIG = "mini_sentiment_own"


@pytest.fixture(scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> str:
    """A dataset folder: 6 runs of 8 updates on 12 of 20 examples, 6 test examples."""
    root = tmp_path_factory.mktemp("collected")
    settings = RunSettings(
        CONFIG, learning_rate=1e-2, pool_size=20, subset=12, batch_size=3, epochs=2, test_examples=6,
        base_model=str(tiny_model_folder), gradients="test",
    )  # fmt: skip
    collect(CollectSettings(Plan("own", (PlanEntry(settings, 6),)), root, workers=1, device="cpu"))
    return str(root)


@pytest.fixture(scope="session")
def memory(collected: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A memory simulator of them, on labels."""
    settings = TrainSettings(collected, CONFIG, encoder="label")
    folder = tmp_path_factory.mktemp("memory")
    train_simulator(settings).save(folder / "model", settings)
    return str(folder / "model")
