"""The six Pythia sizes: their place on the Hub, their runs on tiny models of the same class, their true shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import SettingsError
from gptdynamics.estimates import PYTHIA_SHAPES
from gptdynamics.models.base_model import PYTHIA_REVISIONS, load_base_model
from gptdynamics.models.nano import MODEL_FOLDER
from gptdynamics.models.random_base import save_random_base
from gptdynamics.plans import Plan, PlanEntry, read_plan
from gptdynamics.runs import Bench
from gptdynamics.runs.trainable import trainable_copy
from tests.hub.server import Hub

# As the model cards give them.
PARAMETERS = {"14m": 14_067_712, "70m": 70_426_624}


def put_model(hub: Hub, id: str, folder: Path) -> str:
    """A model repository with the files of a folder; its commit."""
    if ("model", id) not in hub.store.repositories:
        owner = id.split("/")[0]
        hub.store.create("model", id, hub.store.users[hub.store.add_user(owner)])
    return hub.store.put("model", id, {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture
def eleuther(hub: Hub, tiny_model_folder: Path) -> Iterator[Hub]:
    """A Hub where the pinned commits of all sizes hold the tiny model, and newer ones nothing of use."""
    for size, revision in PYTHIA_REVISIONS.items():
        id = f"EleutherAI/pythia-{size}-deduped"
        commit = put_model(hub, id, tiny_model_folder)
        hub.store.repositories["model", id].tags[revision] = commit
        hub.store.put("model", id, {"config.json": b"{}"})
    yield hub


@pytest.mark.parametrize(
    "size",
    # Of the two kinds of settings one of each by default.
    [pytest.param(size, marks=() if size in ("14m", "2.8b") else pytest.mark.slow) for size in PYTHIA_REVISIONS],
)
def test_every_size_is_collected_by_the_papers_settings_from_its_pinned_commit(
    eleuther: Hub, rows_folder: Path, tmp_path: Path, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The models are small here; what is estimated is what those of this name need.
    monkeypatch.setattr("gptdynamics.collection.memory.available_memory", lambda: None)
    (entry,) = read_plan("paper").only([f"flan_{size}"])
    settings = replace(entry.settings, pool_size=8, subset=4, test_examples=2, generate_every=3)
    assert settings.run_steps == (6 if size in ("1b", "2.8b") else 9)
    plan = Plan("few rows", (PlanEntry(settings, 1),))
    collected = collect(CollectSettings(plan, tmp_path, rows_folder, workers=1, device="cpu"))
    assert (collected.done, collected.failed) == ([f"flan_{size}/0000"], {})
    assert verify(tmp_path).faults == []
    folder = DatasetFolder(tmp_path)
    (row,) = read_parquet(folder.run_row_path(f"flan_{size}", "0000")).to_pylist()
    assert (row["base_model"], row["base_revision"]) == (size, PYTHIA_REVISIONS[size])
    losses = read_parquet(folder.run_path(f"flan_{size}", "0000"))["loss"].to_pylist()
    assert len(losses) == 10 and all(each[0] != each[-1] for each in losses)


def test_the_largest_size_trains_the_papers_adapters(eleuther: Hub) -> None:
    (entry,) = read_plan("paper").only(["flan_2.8b"])
    model = trainable_copy(load_base_model("2.8b").model, entry.settings)
    adapted = {name: module for name, module in model.named_modules() if getattr(module, "lora_A", None)}
    assert {name.rsplit(".", 1)[-1] for name in adapted} == {"query_key_value"}
    assert len(adapted) == model.config.num_hidden_layers
    for module in adapted.values():
        assert module.r["default"] == 8
        assert module.scaling["default"] == 4 / 8
        assert module.lora_dropout["default"].p == 0.05
    assert all("lora_" in name for name, value in model.named_parameters() if value.requires_grad)


def test_a_model_of_the_hub_may_be_pinned_to_a_revision(
    hub: Hub, tiny_model_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    first = put_model(hub, "ada/tiny", tiny_model_folder)
    hub.store.repositories["model", "ada/tiny"].tags["v1"] = first
    other = tmp_path / "other"
    save_random_base(replace(PYTHIA_SHAPES["14m"], layers=1, hidden=8, heads=2, vocabulary=8192, context=64), other)
    second = put_model(hub, "ada/tiny", other)
    for name, commit, width in (("ada/tiny", second, 8), ("ada/tiny@v1", first, 32), (f"ada/tiny@{first}", first, 32)):
        base = load_base_model(name)
        assert (base.name, base.revision, base.model.config.hidden_size) == (name, commit, width)
    with pytest.raises(
        SettingsError, match="cannot load base model 'ada/tiny@v2': it has no such commit, branch or tag"
    ):
        load_base_model("ada/tiny@v2")
    settings = RunSettings("rte_tiny", 1e-3, pool_size=12, subset=8, epochs=1, test_examples=3, base_model="ada/tiny")
    wanted = CollectSettings(Plan("one", (PlanEntry(settings, 1),)), tmp_path / "out", rows_folder, 1, "cpu")
    collect(wanted)
    third = put_model(hub, "ada/tiny", tiny_model_folder)
    with pytest.raises(SettingsError, match=f"base_revision: '{second}' there, '{third}' now"):
        collect(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("size", PARAMETERS)
def test_the_smaller_shapes_at_full_size_take_updates_and_measurements(
    rows_folder: Path, tmp_path: Path, size: str
) -> None:
    save_random_base(PYTHIA_SHAPES[size], tmp_path)
    settings = RunSettings(
        "webnlg_tiny",
        1e-4,
        pool_size=12,
        subset=12,
        steps=3,
        test_examples=8,
        generate_every=3,
        gradients="all",
        base_model=str(tmp_path),
    )
    bench = Bench.load(settings, rows_folder)
    assert bench.base.model.num_parameters() == PARAMETERS[size]
    assert len(AutoTokenizer.from_pretrained(MODEL_FOLDER)) < bench.base.model.config.vocab_size
    run = bench.run("0000")
    loss = run.metrics["loss"]
    assert loss.shape == (8, 4)
    # Nothing is known yet: every token of the vocabulary is about as likely.
    np.testing.assert_allclose(loss[:, 0], np.log(50304), rtol=0.05)
    assert (loss[:, -1] < loss[:, 0]).all()
    moved = np.diff(loss.astype(np.float64))
    assert np.corrcoef(run.gradients["update_dot"].ravel(), moved.ravel())[0, 1] > 0.9
