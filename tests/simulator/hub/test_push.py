"""Simulators and base models on the loopback Hub."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModel

from gptdynamics.commands.running import run_app
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.hub import repository as repositories
from gptdynamics.hub.model_push import push_base
from gptdynamics.hub.push import push
from gptdynamics.models.nano import MODEL_FOLDER
from simulator.cli import app
from simulator.evaluation import EvaluateSettings, evaluate, write_rows
from simulator.hub.card import FIGURES
from simulator.hub.push import push_simulator
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training import TrainSettings, train_simulator
from tests.cards import check_whole, code, lines_of, metadata, tables
from tests.hub.faults import Fault
from tests.hub.server import Hub

ID = "ada/rte"


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Run code that can import neither package; its names. A process of its own is in `test_modeling.py`."""
    import matplotlib

    matplotlib.use("agg")

    def run(code: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        with monkeypatch.context() as patch:
            for name in list(sys.modules):
                if name.split(".")[0] in ("gptdynamics", "simulator"):
                    patch.setitem(sys.modules, name, None)
            exec(code, names)
        return names

    return run


@pytest.fixture
def trained(make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list], tmp_path: Path) -> Path:
    """A simulator in a folder, trained on a few made-up runs."""
    values = np.random.default_rng(0).random((6, 4, 7))
    runs = make_dynamics(make_curricula(0, 6, 6, 7), values, 7)
    settings = TrainSettings("made/up", "mini_sentiment_nano", encoder="label")
    train_simulator(settings, runs=runs).save(tmp_path / "model", settings)
    return tmp_path / "model"


def evaluation_of(model: Path, path: Path) -> Path:
    row = {"method": "memory", "model": str(model), "config": "mini_sentiment_nano", "metric": "loss", "split": "test"}
    figures = {"mse": 0.25, "mae": 0.5, "spearman": None, "skill": 0.125, "runs": 3}
    path.write_text(json.dumps([{"method": "persistence", "model": None}, row | figures]))
    return path


def test_a_simulator_is_loaded_where_the_package_is_not(
    hub: Hub, trained: Path, tmp_path: Path, without_package: Callable[[str], dict[str, Any]]
) -> None:
    pushed = push_simulator(trained, ID, private=True, evaluation=evaluation_of(trained, tmp_path / "rows.json"))
    assert pushed.created and hub.store.repositories["model", ID].private
    files = hub.store.files("model", ID)
    card = files["README.md"].decode()
    (load,) = code(card, "python")
    made = without_package(load)
    (line,) = made["plt"].gca().lines
    made["plt"].close()
    predicted, batches = made["predicted"], made["curriculum"]
    assert predicted.shape == (4, 7) and line.get_ydata().tolist() == predicted[0].tolist()
    assert type(made["simulator"]) is not GPTfluenceSimulator
    simulator = GPTfluenceSimulator.from_pretrained(trained)
    expected = simulator.simulate(batches)
    assert (predicted == expected).all() and simulator.what_if(batches).beyond == ()
    assert (GPTfluenceSimulator.from_pretrained(ID).simulate(batches) == expected).all()


def test_the_card_names_figures_and_no_local_path(hub: Hub, trained: Path, tmp_path: Path) -> None:
    import yaml
    from huggingface_hub import ModelCard, parse_eval_result_entries

    push_simulator(trained, ID, evaluation=evaluation_of(trained, tmp_path / "rows.json"))
    card = ModelCard.load(ID)
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"mse": 0.25, "mae": 0.5, "skill": 0.125}
    entries = parse_eval_result_entries(yaml.safe_load(hub.store.files("model", ID)[".eval_results/gptdynamics.yaml"]))
    assert {(entry.dataset_id, entry.task_id, entry.value) for entry in entries} == {
        ("made/up", f"mini_sentiment_nano_loss_{key}", value) for key, value in results.items()
    }
    assert card.data.datasets == ["made/up"] and card.data.library_name == "transformers"
    push_simulator(trained, ID, dataset=str(tmp_path))
    files = hub.store.files("model", ID)
    assert not [path for path, content in files.items() if str(tmp_path).encode() in content]
    assert json.loads(files["training.json"])["settings"]["dataset"] is None
    check_whole(files["README.md"].decode(), HEADINGS)


HEADINGS = ["Load and plot", "How it was made", "Limits", "Citation"]


@pytest.mark.parametrize(
    ("dynamics", "configs"),
    [
        ("memory", ("mini_sentiment_nano", "mini_triples_nano")),
        pytest.param("markov", ("mini_sentiment_nano",), marks=pytest.mark.slow),
    ],
)
def test_a_whole_card_with_a_picture_and_the_command_that_makes_the_same_again(
    hub: Hub,
    dataset: Path,
    tmp_path: Path,
    dynamics: str,
    configs: tuple[str, ...],
    quick_markov: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import yaml

    push(dataset, "ada/runs")
    monkeypatch.chdir(tmp_path)
    settings = TrainSettings("ada/runs", configs, dynamics=dynamics, encoder="label", bands=False)
    train_simulator(settings).save(Path("trained"), settings)
    rows = []
    for config in configs:
        wanted = EvaluateSettings("ada/runs", config, models=("trained",), baselines=("mean_curve",))
        found = evaluate(wanted).rows
        assert found == evaluate(replace(wanted, dataset=str(dataset))).rows
        rows += found
    write_rows(rows, Path("rows.json"))
    notes: list[str] = []
    push_simulator(Path("trained"), ID, evaluation=Path("rows.json"), on_note=notes.append)
    assert notes == []
    files = hub.store.files("model", ID)
    card = files["README.md"].decode()
    check_whole(card, [*HEADINGS[:2], "Held-out runs", *HEADINGS[2:]])
    mine = {row.config: row for row in rows if row.model == "trained"}
    expected = {
        (f"`{config}`", name): getattr(mine[config], key) for key, name in FIGURES.items() for config in configs
    }
    said = {(row[0], row[3]): float(row[4]) for row in tables(card)[2][1:]}
    assert said == {key: pytest.approx(value, rel=1e-3) for key, value in expected.items()}
    listed = metadata(card)
    assert listed["datasets"] == ["ada/runs"]
    indexed = {each["dataset"]["config"]: each["metrics"] for each in listed["model-index"][0]["results"]}
    assert set(indexed) == set(configs)
    for config, metrics in indexed.items():
        assert {each["type"]: each["value"] for each in metrics} == {key: getattr(mine[config], key) for key in FIGURES}
    assert len(yaml.safe_load(files[".eval_results/gptdynamics.yaml"])) == len(FIGURES) * len(configs)
    # Mean curve, truth and prediction of four pairs, for each config.
    assert lines_of(files["trajectories.svg"]) == 12 * len(configs) and "](trajectories.svg)" in card
    (command,) = code(card, "bash")
    with pytest.raises(SystemExit) as stopped:
        run_app(app, shlex.split(command)[1:])
    assert not stopped.value.code
    for name in ("config.json", "model.safetensors"):
        assert (Path("model") / name).read_bytes() == files[name]
    if dynamics == "memory":
        names: dict[str, Any] = {}
        monkeypatch.setenv("MPLBACKEND", "agg")
        exec(code(card, "python")[0], names)
        assert names["predicted"].shape == (6, 11)
        names["plt"].close()


def test_push_to_hub_gives_the_same_repository_as_the_command(hub: Hub, trained: Path, tmp_path: Path) -> None:
    push_simulator(trained, "ada/by-command")
    simulator = GPTfluenceSimulator.from_pretrained(trained)
    address = simulator.push_to_hub("ada/by-method")
    expected = hub.store.files("model", "ada/by-command")
    expected["README.md"] = expected["README.md"].replace(b"by-command", b"by-method")
    assert hub.store.files("model", "ada/by-method") == expected
    assert hub.store.history("model", "ada/by-method")[0].sha in address
    check_whole(expected["README.md"].decode(), HEADINGS)
    # Again from what is on the Hub, by the code that travelled with it, under a name of the user's own.
    travelled = AutoModel.from_pretrained("ada/by-method", trust_remote_code=True)
    assert type(travelled) is not GPTfluenceSimulator
    travelled.push_to_hub("again", private=True, tags=["mine"], commit_message="Here it is")
    again = hub.store.files("model", "ada/again")
    assert hub.store.repositories["model", "ada/again"].private
    assert hub.store.history("model", "ada/again")[0].title == "Here it is"
    assert metadata(again["README.md"].decode())["tags"][-1] == "mine"
    assert again["training.json"] == expected["training.json"]
    found = GPTfluenceSimulator.from_pretrained("ada/again").simulate([[0, 1]] * 6)
    assert (found == simulator.simulate([[0, 1]] * 6)).all()


def test_a_simulator_that_was_just_trained_is_pushed_while_it_is_saved(
    hub: Hub, make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list], tmp_path: Path
) -> None:
    runs = make_dynamics(make_curricula(0, 6, 6, 7), np.random.default_rng(0).random((6, 4, 7)), 7)
    model = train_simulator(TrainSettings("made/up", "mini_sentiment_nano", encoder="label"), runs=runs).model
    options = {"revision": "draft", "commit_description": "More words", "token": "hf_ada_write"}
    model.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=ID, **options)
    assert "README.md" not in hub.store.files("model", ID)
    card = hub.store.files("model", ID, "draft")["README.md"].decode()
    check_whole(card, HEADINGS)
    assert "gptfluence train made/up" in card


def test_the_card_of_a_simulator_of_unknown_training_says_nothing_of_it(hub: Hub, trained: Path) -> None:
    (trained / "training.json").unlink()
    GPTfluenceSimulator.from_pretrained(trained).push_to_hub(ID)
    files = hub.store.files("model", ID)
    check_whole(files["README.md"].decode(), [HEADINGS[0], *HEADINGS[2:]])
    assert "training.json" not in files and "gptfluence train" not in files["README.md"].decode()


def test_without_the_package_the_inherited_push_is_made(
    hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "simulator.hub.push", None)
    GPTfluenceSimulator.from_pretrained(trained).push_to_hub(ID)
    assert "model.safetensors" in hub.store.files("model", ID)
    assert "## Limits" not in hub.store.files("model", ID)["README.md"].decode()


def test_a_base_model_that_others_cannot_get_is_told(hub: Hub, trained: Path) -> None:
    model = GPTfluenceSimulator.from_pretrained(trained)
    model.config.base_model = model.config.encoder["model"] = "/home/ada/my|model"
    model.save_pretrained(trained)
    notes: list[str] = []
    push_simulator(trained, ID, on_note=notes.append)
    assert notes[0].startswith(
        "the base model /home/ada/my|model is a local folder, which other users do not have: publish it"
    )
    assert notes[1].startswith("the card has no picture of held-out runs: ")
    card = hub.store.files("model", ID)["README.md"].decode()
    check_whole(card, HEADINGS)
    assert "/home/ada" not in card and "model my|model" in card and "trajectories.svg" not in card


def test_what_somebody_wrote_into_the_card_is_kept(hub: Hub, trained: Path, tmp_path: Path) -> None:
    push_simulator(trained, ID)
    card = hub.store.files("model", ID)["README.md"].decode()
    edited = card.replace("license: apache-2.0\n", "license: mit\nlanguage: en\n", 1).replace(
        "- gptfluence\n", "- mine\n"
    )
    edited = (
        edited.replace("\n<!-- gptdynamics: gen", "\nA word before.\n\n<!-- gptdynamics: gen", 1) + "\nAnd after.\n"
    )
    hub.store.put("model", ID, {"README.md": edited.encode()})
    push_simulator(trained, ID, evaluation=evaluation_of(trained, tmp_path / "rows.json"))
    new = hub.store.files("model", ID)["README.md"].decode()
    for kept in (
        "license: mit",
        "language: en",
        "- mine",
        "- gptfluence",
        "A word before.",
        "And after.",
        "model-index",
    ):
        assert kept in new
    assert new.count("## Limits") == 1 and "## Held-out runs" in new
    push_simulator(trained, ID)
    again = hub.store.files("model", ID)["README.md"].decode()
    assert "model-index" not in again and "## Held-out runs" not in again and "A word before." in again
    hub.store.put("model", ID, {"README.md": b"---\ntags: [\n---\nmine\n"})
    before = hub.store.files("model", ID)
    with pytest.raises(DataError, match=r"ada/rte: README.md: its YAML cannot be read .*Correct it by hand"):
        push_simulator(trained, ID)
    assert hub.store.files("model", ID) == before


def test_a_push_is_tried_again_and_made_once(hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repositories, "FIRST_PAUSE_SECONDS", 0.001)
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
        "other kind": r"ada/gpt has a model of another kind \(gpt_neox, not gptfluence\)",
        "reader": r"ada/gpt: your token has no write access",
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
