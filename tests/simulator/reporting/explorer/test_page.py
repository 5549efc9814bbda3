"""The page holds everything, within its size, and every text in it is text."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from simulator.cli import app
from simulator.evaluation.simulated import Simulated, load_simulator
from simulator.hub.space import push_space
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.example_encoding import content_key
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.reporting.explorer import View, explorer_payload, views_of, write_explorer
from simulator.reporting.explorer.page import SCRIPTS, asset
from tests.accessibility import page_faults
from tests.hub.server import Hub

NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)> & <!-- \u2028 \u2029",
    "\u202eright to left override",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "bell \x07, null \x00, escape \x1b[31m",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
]


class Elements(HTMLParser):
    """Tags of a page, and the texts of its scripts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


def read(path: Path) -> Elements:
    found = Elements()
    found.feed(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def view(
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator],
    make_dynamics: Callable[..., Dynamics],
    make_curricula: Callable[..., list],
) -> View:
    values = np.random.default_rng(0).random((3, 4, 7))
    return View(make_dynamics(make_curricula(0, 3, 6, 7), values, 7), (Simulated(make_model(make_config("memory"))),))


def with_texts(view: View, texts: list[str]) -> View:
    """The same with these prompts in the pool, which the simulator is told to know."""
    pool = [replace(each, prompt=text) for each, text in zip(view.runs.pool, texts, strict=True)]
    view.simulators[0].simulator.config.pool_keys = [content_key(each) for each in pool]
    return replace(view, runs=replace(view.runs, pool=pool))


def test_texts_are_data_and_cannot_break_out(view: View, tmp_path: Path) -> None:
    plain = tmp_path / "plain.html"
    write_explorer(plain, [view])
    found = with_texts(view, [*NASTY, "plain"])
    page = tmp_path / "page.html"
    size = write_explorer(page, [found])
    assert size == page.stat().st_size
    text = page.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text and "<img" not in text
    parsed = read(page)
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in read(plain).tags]
    (data,) = (script for script in parsed.scripts if script.startswith('{"views"'))
    assert data.isascii()
    prompts = {example[2] for example in json.loads(data)["examples"]}
    assert prompts >= set(NASTY)


def test_no_script_puts_texts_in_as_markup() -> None:
    own = [name for name in SCRIPTS if "/" not in name]
    assert len(own) == 7
    for name in own:
        code = asset(name)
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "DOMParser",
        ):
            assert way not in code, f"{name}: {way}"
    for name in SCRIPTS:
        assert "</script" not in asset(name).lower()


def test_texts_are_shown_with_nothing_hidden(scripts: Callable, view: View) -> None:
    page = scripts(view)
    page.engine.eval(asset("texts.js"))
    shown = [page.value(f"visible({json.dumps(text)})") for text in NASTY]
    assert shown[0] == NASTY[0] and shown[1].startswith("<img src=x") and shown[3] == NASTY[3] and shown[5] == NASTY[5]
    assert shown[2] == "\u2039U+202E\u203aright to left override"
    assert shown[4] == "bell \u2407, null \u2400, escape \u241b[31m"
    assert page.value('visible("a\\r\\nb\\tc\\u007f\\u0085")') == "a\nb\tc\u20397F\u203a\u203985\u203a"
    assert page.value(f"shortened({json.dumps(NASTY[5] * 9)}, 3)") == "\U0001f469\u200d\U0001f469\u2026"
    assert page.value("[numberText(-0.0001), numberText(-2.5, 1), signedText(1), signedText(0)]") == [
        "0.000",
        "\u22122.5",
        "+1.000",
        "0.000",
    ]


def test_the_page_loads_nothing(view: View, tmp_path: Path) -> None:
    write_explorer(tmp_path / "page.html", [view])
    parsed = read(tmp_path / "page.html")
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img")
        assert "src" not in attributes and not str(attributes.get("href", "#")).startswith(("http", "/"))
    (policy,) = (each["content"] for tag, each in parsed.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "http" not in policy


def test_every_control_and_picture_has_a_name(view: View, tmp_path: Path) -> None:
    write_explorer(tmp_path / "page.html", [view])
    assert page_faults(tmp_path / "page.html") == []
    tags = read(tmp_path / "page.html").tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    used = set(re.findall(r'byId\("([\w-]+)"\)', "".join(asset(name) for name in SCRIPTS if "/" not in name)))
    assert used - {"data"} <= set(ids)
    live = [
        attributes["id"] for _, attributes in tags if "aria-live" in attributes or attributes.get("role") == "alert"
    ]
    assert set(live) == {"answer", "trouble"}


def test_without_texts_examples_have_ids_and_labels(view: View, tmp_path: Path) -> None:
    payload = explorer_payload([view], texts=False)
    assert {tuple(each[2:]) for each in payload["examples"]} == {(None, each.target) for each in view.runs.pool}
    text = json.dumps(payload)
    assert not any(each.prompt in text for each in view.runs.pool)
    generated = replace(view.runs, test=[replace(each, references=("a",)) for each in view.runs.test])
    shown = explorer_payload([View(generated, ())], texts=False)
    view_of = shown["views"][0]
    assert all(shown["examples"][at][2:] == [None, None] for at in view_of["test"])
    write_explorer(tmp_path / "page.html", [view], texts=False)
    assert "Prompts and targets were left out" in (tmp_path / "page.html").read_text()


def test_of_32_runs_and_200_test_examples_it_is_below_8_mb(
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator],
    make_curricula: Callable[..., list],
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    examples = [[Example(at, "word " * 120 + str(at), "yes", (), "rte", {}) for at in range(200)] for _ in range(2)]
    sizes = {"pool": 1, "tests": 1, "steps": 96, "batch_size": 4, "calibration_runs": 27}
    many = {"components": 8, "decays": [0.5] * 13, "fade_rates": [0.0] * 5, "hidden": 64, "encoder_width": 128}
    models = []
    for dynamics in ("memory", "markov"):
        config = make_config(dynamics, **sizes, **many)
        for name, part in zip(("pool", "test"), examples, strict=True):
            setattr(config, f"{name}_ids", [each.id for each in part])
            setattr(config, f"{name}_keys", [content_key(each) for each in part])
        models.append(Simulated(make_model(config)))
    config = models[0].simulator.config
    runs = Dynamics(
        source="made by hand",
        config=config.dataset_config,
        metric="loss",
        runs=[f"{at:04d}" for at in range(32)],
        curricula=make_curricula(0, 32, 96, 200, 4),
        learning_rate=np.array([config.learning_rate] * 32),
        step=np.arange(97),
        values=rng.random((32, 200, 97)).astype(np.float32),
        pool=examples[0],
        test=examples[1],
        base_model=config.base_model,
        base_revision=config.base_revision,
        batch_size=4,
    )
    size = write_explorer(tmp_path / "page.html", [View(runs, tuple(models))])
    assert size < 8e6


def test_numbers_go_in_as_they_are(view: View) -> None:
    packed = explorer_payload([view])["views"][0]

    def floats(text: str) -> np.ndarray:
        return np.frombuffer(base64.b64decode(text), dtype="<f4")

    assert floats(packed["initial"]).tolist() == view.runs.values[..., :1].ravel().tolist()
    baseline = view.simulators[0].simulator.dynamics.baseline
    assert floats(packed["models"][0]["arrays"]["baseline"]).tolist() == baseline.flatten().tolist()
    assert len(packed["rates"]) == 1 and [run["rates"] for run in packed["runs"]] == [0, 0, 0]
    places = {each.id: at for at, each in enumerate(view.runs.pool)}
    assert packed["runs"][1]["batches"] == [[places[key] for key in batch] for batch in view.runs.curricula[1]]


def test_several_simulators_and_metrics_in_one_page(dataset: Path, trained: dict[str, str]) -> None:
    views = views_of(str(dataset), [trained[name] for name in ("memory", "of triples", "markov_2")])
    assert [(view.runs.config, view.runs.metric, len(view.simulators)) for view in views] == [
        ("mini_sentiment_nano", "loss", 2),
        ("mini_triples_nano", "rougeL", 1),
    ]
    packed = explorer_payload(views)["views"]
    assert [model["name"] for model in packed[0]["models"]] == ["memory_label", "markov_2_label"]
    assert packed[1]["step"] == [0, 4, 8, 10]
    with pytest.raises(SettingsError, match="trained for mini_triples_nano, not mini_sentiment_nano"):
        views_of(str(dataset), [trained["of triples"]], "mini_sentiment_nano")
    with pytest.raises(SettingsError, match="at least one simulator"):
        explorer_payload([])
    other = Simulated(load_simulator(trained["of accuracy"]))
    with pytest.raises(SettingsError, match="does not fit the data"):
        explorer_payload([View(views[0].runs, (other,))])


def test_the_command_writes_the_page(dataset: Path, trained: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "explorer.html"
    arguments = ["report", str(dataset), "--interactive", "--models", trained["memory"], "--output", str(page)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and f"wrote {page}" in done.output
    assert "mini_sentiment_nano" in page.read_text()
    for wrong, message in (
        (["--interactive"], "give --models, or --config"),
        (["--interactive", "--models", trained["memory"], "--figure", "x.svg"], "--figure is of the report without"),
        (["--config", "mini_sentiment_nano", "--no-texts"], "--no-texts needs --interactive"),
        ([], "give --config"),
    ):
        with pytest.raises(SettingsError, match=message):
            CliRunner().invoke(app, ["report", str(dataset), "--output", str(page), *wrong], catch_exceptions=False)


def test_without_models_the_command_trains_some(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_markov: None
) -> None:
    monkeypatch.setattr("simulator.reporting.explorer.views.TRAINED_HERE", (("memory", "label"), ("markov", "label")))
    page = tmp_path / "explorer.html"
    arguments = ["report", str(dataset), "--interactive", "--config", "mini_sentiment_nano", "--output", str(page)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and f"wrote {page}" in done.output
    elements = Elements()
    elements.feed(page.read_text())
    packed = next(json.loads(script) for script in elements.scripts if script.startswith("{"))
    assert [model["name"] for model in packed["views"][0]["models"]] == ["memory_label", "markov_1_label"]
    with pytest.raises(SettingsError, match="no_such_nano"):
        CliRunner().invoke(app, [*arguments[:4], "no_such_nano", *arguments[5:]], catch_exceptions=False)


def test_a_space_holds_the_page_and_a_card(hub: Hub, dataset: Path, trained: dict[str, str], tmp_path: Path) -> None:
    from huggingface_hub import HfApi, metadata_load

    model = Path(trained["memory"])
    pushed = push_space(model, "ada/rte", "ada/explorer", private=True, dataset="ada/dynamics")
    assert pushed.created and hub.store.repositories["space", "ada/explorer"].private
    files = hub.store.files("space", "ada/explorer")
    assert pushed.files == ["README.md", "index.html"] == sorted(set(files) - {".gitattributes"})
    page = tmp_path / "same.html"
    runs = read_dynamics(dataset, "mini_sentiment_nano", "loss")
    write_explorer(page, [View(runs, (Simulated(load_simulator(str(model))),))])
    assert files["index.html"] == page.read_bytes()
    (tmp_path / "README.md").write_bytes(files["README.md"])
    card = metadata_load(tmp_path / "README.md")
    assert (card["sdk"], card["models"], card["datasets"]) == ("static", ["ada/rte"], ["ada/dynamics"])
    assert str(dataset) not in files["README.md"].decode() and "huggingface.co/ada/rte" in files["README.md"].decode()
    assert push_space(model, "ada/rte", "ada/explorer", dataset="ada/dynamics").files == []
    again = push_space(model, "ada/rte", "ada/explorer", texts=False)
    assert again.files == ["README.md", "index.html"]
    assert "examples are named by their ids" in hub.store.files("space", "ada/explorer")["README.md"].decode()
    HfApi().create_repo("ada/other", repo_type="space", space_sdk="static")
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="index.html", repo_id="ada/other", repo_type="space")
    with pytest.raises(DataError, match="not an explorer"):
        push_space(model, "ada/rte", "ada/other")
    assert hub.store.files("space", "ada/other")["index.html"] == b"mine"
