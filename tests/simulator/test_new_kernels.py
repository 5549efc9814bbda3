"""A tangent simulator answers for rows and test examples that nobody has seen: its reference runs are made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.reference import NotRepeatableError
from gptdynamics.settings.kernels import KernelSettings
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.settings.use_cases import InfluenceSettings
from simulator.training import TrainSettings, train_simulator
from simulator.use_cases.case import Case
from simulator.use_cases.influence import find_influence

POOL, TESTS, STEPS = 12, 6, 6
NEW_ROW = Example(90, "Review: a dull, long film.\nSentiment:", " negative", task="mini_sentiment")
NEW_TEST = Example(91, "Review: what a joy!\nSentiment:", " positive", task="mini_sentiment")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Dynamics:
    settings = RunSettings(
        "mini_sentiment_tiny",
        1e-2,
        pool_size=POOL,
        subset=POOL,
        batch_size=2,
        epochs=1,
        test_examples=TESTS,
        base_model=str(tiny_model_folder),
    )
    entry = PlanEntry(settings, 6, kernels=1, kernel=KernelSettings(checkpoints=2, columns=16))
    folder = tmp_path_factory.mktemp("collected") / "dataset"
    collect(CollectSettings(Plan("test", (entry,)), folder, workers=1))
    return read_dynamics(folder, settings.config)


@pytest.fixture(scope="module")
def model(runs: Dynamics, tmp_path_factory: pytest.TempPathFactory) -> GPTfluenceSimulator:
    """Saved and loaded, so that nothing but the folder is known."""
    settings = TrainSettings(runs.source, runs.config, bands=False)
    folder = tmp_path_factory.mktemp("model") / "tangent"
    train_simulator(settings).save(folder, settings)
    loaded: GPTfluenceSimulator = GPTfluenceSimulator.from_pretrained(folder)
    assert loaded.config.dynamics == "tangent"
    return loaded


def with_base(model: GPTfluenceSimulator, folder: Path) -> GPTfluenceSimulator:
    """Where a base model's folder is on this machine is not published: it is said again."""
    for record in model.config.references:
        record["plan_entry"]["settings"]["base_model"] = str(folder)
    return model


def test_new_examples_have_kernels_beside_those_that_are_carried(
    runs: Dynamics, model: GPTfluenceSimulator, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path))
    model = with_base(model, tiny_model_folder)
    stored = model.encode()
    assert stored.kernels is not None
    encoded = model.encode([*runs.pool, NEW_ROW], [NEW_TEST, *runs.test])
    assert encoded.kernels is not None and encoded.kernels.shape == (stored.kernels.size(0), POOL + 1, TESTS + 1)
    assert encoded.seen.tolist() == [-1, *range(TESTS)]
    torch.testing.assert_close(encoded.kernels[:, :POOL, 1:], stored.kernels, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(encoded.test[1:], stored.test, rtol=1e-3, atol=1e-4)
    # Rows of the pool in another order, and test examples alone.
    other = model.encode([NEW_ROW, runs.pool[3]], [NEW_TEST])
    torch.testing.assert_close(other.kernels, encoded.kernels[:, [POOL, 3], :1], rtol=1e-3, atol=1e-4)


def test_a_run_with_new_rows_is_simulated_for_new_test_examples(
    runs: Dynamics, model: GPTfluenceSimulator, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path))
    model = with_base(model, tiny_model_folder)
    curriculum = [*runs.curricula[0][:-1], [NEW_ROW.id, runs.curricula[0][-1][0]]]
    pool = [*runs.pool, NEW_ROW]
    predicted = model.simulate(curriculum, pool, [NEW_TEST, runs.test[0]], initial=[3.0, float(runs.values[0, 0, 0])])
    assert predicted.shape == (2, STEPS + 1) and bool(torch.isfinite(predicted).all())
    same = model.simulate(curriculum, pool, [runs.test[0]], initial=[float(runs.values[0, 0, 0])])
    torch.testing.assert_close(predicted[1], same[0], rtol=1e-4, atol=1e-5)


def test_influence_on_a_text_of_ones_own(
    runs: Dynamics, model: GPTfluenceSimulator, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path))
    model = with_base(model, tiny_model_folder)
    monkeypatch.chdir(tiny_model_folder.parent)
    monkeypatch.setattr("simulator.use_cases.influence.load_case", lambda *_: Case(model, "tangent", runs))
    settings = InfluenceSettings(runs.source, "model", prompt=NEW_TEST.prompt, target=NEW_TEST.target)
    found = find_influence(settings)
    assert [example.prompt for example in found.test] == [NEW_TEST.prompt]
    assert found.final.shape == (POOL, 1) and found.error is not None and np.ptp(found.final) > 0
    known = InfluenceSettings(runs.source, "model", prompt=runs.test[2].prompt, target=runs.test[2].target)
    same = find_influence(known)
    recorded = find_influence(InfluenceSettings(runs.source, "model"))
    assert np.corrcoef(same.final[:, 0], recorded.final[:, 2])[0, 1] > 0.99
    with pytest.raises(SettingsError, match="needs both"):
        InfluenceSettings(runs.source, "model", prompt="Review:")


def test_what_cannot_be_made_again_is_said(model: GPTfluenceSimulator) -> None:
    [record] = model.config.references
    entry = record.pop("plan_entry")
    record["not_repeatable"] = "only its owner can repeat run 0000: use --dynamics memory"
    try:
        with pytest.raises(NotRepeatableError, match="use --dynamics memory"):
            model.encode(None, [NEW_TEST])
    finally:
        record["plan_entry"] = entry
    sources, model.config.pool_sources = model.config.pool_sources, []
    try:
        with pytest.raises(DataError, match="does not say which rows its pool is made of"):
            model.encode(None, [NEW_TEST])
    finally:
        model.config.pool_sources = sources
