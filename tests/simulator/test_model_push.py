"""Simulators and base models on the loopback Hub."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.hub import retry
from gptdynamics.hub.model_push import push_base
from gptdynamics.nano import MODEL_FOLDER
from simulator.model_push import push_simulator
from simulator.modeling_gptfluence import GPTfluenceSimulator
from simulator.training import TrainSettings, train_simulator
from tests.hub.faults import Fault
from tests.hub.server import Hub

ID = "ada/rte"
WITHOUT_PACKAGE = "import sys\nsys.modules['gptdynamics'] = sys.modules['simulator'] = None\n"


@pytest.fixture
def trained(make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list], tmp_path: Path) -> Path:
    """A simulator in a folder, trained on a few made-up runs."""
    values = np.random.default_rng(0).random((6, 7, 4))
    runs = make_dynamics(make_curricula(0, 6, 6, 7), values, 7)
    settings = TrainSettings("made/up", "mini_sentiment_nano", encoder="label")
    train_simulator(settings, runs=runs).save(tmp_path / "model", settings)
    return tmp_path / "model"


def evaluation_of(model: Path, path: Path) -> Path:
    row = {"method": "memory", "model": str(model), "config": "mini_sentiment_nano", "metric": "loss", "split": "test"}
    figures = {"mse": 0.25, "mae": 0.5, "spearman": None, "skill": 0.125, "runs": 3}
    path.write_text(json.dumps([{"method": "persistence", "model": None}, row | figures]))
    return path


def test_a_simulator_is_loaded_where_the_package_is_not(hub: Hub, trained: Path, tmp_path: Path) -> None:
    pushed = push_simulator(trained, ID, private=True, evaluation=evaluation_of(trained, tmp_path / "rows.json"))
    assert pushed.created and hub.store.repositories["model", ID].private
    files = hub.store.files("model", ID)
    card = files["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    code = code.replace("[0, 1, 2, 3]", "[0, 1]") + "print(predicted.tolist())\n"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE + code],
        env=hub.environment(tmp_path / "home", "hf_ada_write"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shape, values = done.stdout.strip().splitlines()[-2:]
    assert shape == "torch.Size([4, 7])"
    expected = GPTfluenceSimulator.from_pretrained(trained).simulate([[0, 1]] * 6)
    assert json.loads(values) == expected.tolist()
    assert (GPTfluenceSimulator.from_pretrained(ID).simulate([[0, 1]] * 6) == expected).all()


def test_the_card_names_figures_and_no_local_path(hub: Hub, trained: Path, tmp_path: Path) -> None:
    import yaml
    from huggingface_hub import ModelCard, parse_eval_result_entries

    push_simulator(trained, ID, evaluation=evaluation_of(trained, tmp_path / "rows.json"))
    card = ModelCard.load(ID)
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"mse": 0.25, "mae": 0.5, "skill": 0.125}
    entries = parse_eval_result_entries(yaml.safe_load(hub.store.files("model", ID)[".eval_results/gptdynamics.yaml"]))
    assert {(entry.dataset_id, entry.task_id, entry.value) for entry in entries} == {
        ("made/up", f"mini_sentiment_nano_{key}", value) for key, value in results.items()
    }
    assert card.data.datasets == ["made/up"] and card.data.library_name == "transformers"
    push_simulator(trained, ID, dataset=str(tmp_path))
    files = hub.store.files("model", ID)
    assert not [path for path, content in files.items() if str(tmp_path).encode() in content]
    assert json.loads(files["training.json"])["settings"]["dataset"] is None


def test_a_push_is_tried_again_and_made_once(hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    hub.faults.add(Fault("POST .*/commit/", status=500))
    first = push_simulator(trained, ID)
    again = push_simulator(trained, ID)
    assert (again.files, again.sha) == ([], first.sha)
    assert len(hub.store.history("model", ID)) == 2


@pytest.mark.parametrize("what", ["nothing", "evaluation", "other kind", "reader"])
def test_what_may_not_be_changes_nothing(
    hub: Hub, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    hub.store.create("model", "ada/gpt", hub.store.users["hf_ada_write"])
    kind = "gptfluence" if what == "reader" else "gpt_neox"
    hub.store.put("model", "ada/gpt", {"config.json": json.dumps({"model_type": kind}).encode()})
    before = hub.store.files("model", "ada/gpt")
    rows = evaluation_of(tmp_path / "elsewhere", tmp_path / "rows.json") if what == "evaluation" else None
    if what == "reader":
        monkeypatch.setenv("HF_TOKEN", "hf_cy_read")
    source = tmp_path if what == "nothing" else trained
    messages = {
        "nothing": r"no simulator that gptfluence train has saved",
        "evaluation": r"has no figures of .*model\. Run gptfluence evaluate",
        "other kind": r"ada/gpt holds a model of another kind \(gpt_neox, not gptfluence\)",
        "reader": r"ada/gpt: your token may not write there",
    }
    with pytest.raises(GPTDynamicsError, match=messages[what]):
        push_simulator(source, "ada/gpt", evaluation=rows)
    assert hub.store.files("model", "ada/gpt") == before


def test_the_bundled_base_model_is_published_whole(hub: Hub, tmp_path: Path) -> None:
    push_base("ada/nano")
    files = hub.store.files("model", "ada/nano")
    assert files["model.safetensors"] == (MODEL_FOLDER / "model.safetensors").read_bytes()
    assert {"config.json", "tokenizer.json", "README.md", "pretraining.json"} <= files.keys()
    with pytest.raises(DataError, match=r"no config\.json; a base model has"):
        push_base("ada/nothing", tmp_path)
    assert ("model", "ada/nothing") not in hub.store.repositories
