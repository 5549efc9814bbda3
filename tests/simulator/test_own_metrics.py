"""Simulators of metrics of a task's own; its file is named by nothing while they are made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.dataset import read_dynamics
from gptdynamics.metrics import METRICS
from gptdynamics.tasks.user_tasks import VARIABLE
from simulator.evaluation.evaluate import EvaluateSettings, evaluate
from simulator.evaluation.simulated import load_simulator
from simulator.model.configuration_gptfluence import METRIC_RANGES, GPTfluenceConfig, Scale, scale_of
from simulator.reporting.evaluation_page import report_evaluation
from simulator.reporting.explorer.payload import explorer_payload
from simulator.reporting.explorer.views import views_of
from simulator.training import TrainSettings, train_simulator
from simulator.use_cases.influence import InfluenceSettings, find_influence
from simulator.use_cases.simulate import SimulateSettings, simulate
from tests.own_metrics import RUNS, collect_notes

CONFIG = "notes_tiny"
OWN = ("words_missing", "exact_match", "text_length")
INFINITE = float("inf")


@pytest.fixture(scope="module")
def dataset(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(collect_notes(tmp_path_factory.mktemp("own_metrics"), tiny_model_folder))


@pytest.fixture(scope="module")
def models(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A memory simulator of each metric that is the task's own, and one of the loss and a metric together."""
    root = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        patch.setenv("GPTDYNAMICS_CACHE", str(root / "cache"))
        for name, metric in {**{name: name for name in OWN}, "both": ("loss", "words_missing")}.items():
            settings = TrainSettings(dataset, CONFIG, metric, encoder="label")
            train_simulator(settings).save(root / name, settings)
    return {path.name: str(path) for path in root.iterdir() if path.name != "cache"}


@pytest.mark.parametrize(
    ("metric", "scale", "higher_is_better"),
    [
        ("words_missing", Scale("value", 0, 1), False),
        ("exact_match", Scale("value", 0, 1), True),
        ("text_length", Scale("value", 0, INFINITE), True),
    ],
)
def test_a_simulator_says_what_its_metric_is(
    models: dict[str, str], metric: str, scale: Scale, higher_is_better: bool
) -> None:
    config = load_simulator(models[metric]).config
    assert (config.metric, config.scale, config.higher_is_better) == (metric, scale, higher_is_better)
    saved = json.loads((Path(models[metric]) / "config.json").read_text("utf-8"))
    assert saved["direction"] == ("higher" if higher_is_better else "lower")


def test_parts_have_metrics_of_their_own(models: dict[str, str]) -> None:
    model = load_simulator(models["both"])
    parts = [model.part(CONFIG, metric).config for metric in ("loss", "words_missing")]
    assert [part.scale for part in parts] == [scale_of("loss"), Scale("value", 0, 1)]
    assert [part.higher_is_better for part in parts] == [False, False]


@pytest.mark.parametrize("metric", OWN)
def test_predictions_keep_to_the_range_of_the_metric(models: dict[str, str], dataset: str, metric: str) -> None:
    found = simulate(SimulateSettings(models[metric], dataset, interval=0.5))
    assert found.low is not None and found.high is not None
    _, least, greatest = load_simulator(models[metric]).config.scale
    for values in (found.values, found.low, found.high):
        assert bool(torch.isfinite(values).all())
        assert values.min() >= least and values.max() <= greatest


def test_they_are_evaluated_and_reported(models: dict[str, str], dataset: str, tmp_path: Path) -> None:
    settings = EvaluateSettings(dataset, CONFIG, "words_missing", (models["words_missing"],))
    evaluation = evaluate(settings)
    assert {row.metric for row in evaluation.rows} == {"words_missing"}
    # Persistence, from the values themselves: the first one is given, the others are scored.
    (persistence,) = [row for row in evaluation.rows if row.method == "persistence"]
    values = read_dynamics(dataset, CONFIG, "words_missing").split("test").values
    assert persistence.mse == pytest.approx(np.square(values[..., 1:] - values[..., :1]).mean(), rel=1e-5)
    report_evaluation(evaluation, settings, tmp_path / "report.html")
    assert "words missing (0-1)" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("metric", "sign"), [("words_missing", -1), ("text_length", 1)])
def test_what_helps_is_told_by_the_metric_direction(
    models: dict[str, str], dataset: str, metric: str, sign: int
) -> None:
    found = find_influence(InfluenceSettings(dataset, models[metric]))
    effects = [each.final * sign for each in found.effects()]
    assert effects == sorted(effects, reverse=True)
    assert all(each.final * sign > 0 for each in found.helped())
    assert all(each.final * sign < 0 for each in found.harmed())


def test_the_explorer_is_told_range_and_title(models: dict[str, str], dataset: str) -> None:
    views = views_of(dataset, [models["words_missing"], models["text_length"]])
    payload = {view["metric"]: view for view in explorer_payload(views)["views"]}
    assert payload["words_missing"]["axis"] == "words missing (0-1)"
    assert payload["text_length"]["axis"] == "text_length (characters)"
    assert [each["range"] for view in payload.values() for each in view["models"]] == [[0, 1], [0, None]]
    json.dumps(payload, allow_nan=False)


def test_the_configuration_knows_the_metrics_of_the_package() -> None:
    assert {name: scale_of(name) for name in METRIC_RANGES} == {
        name: Scale(metric.latent, metric.least, metric.greatest) for name, metric in METRICS.items()
    }


def test_a_configuration_of_before_is_read_by_the_name_of_its_metric() -> None:
    for name, scale, higher_is_better in (
        ("loss", Scale("log-odds", 0, INFINITE), False),
        ("accuracy", Scale("value", 0, 1), True),
        ("bleu", Scale("value", 0, 100), True),
        ("rougeL", Scale("value", 0, 1), True),
    ):
        config = GPTfluenceConfig(metric=name)
        assert (config.scale, config.higher_is_better) == (scale, higher_is_better)


@pytest.mark.parametrize("least", [None, -3.0])
@pytest.mark.parametrize("greatest", [None, 2.5])
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_configuration_is_read_back(
    tmp_path: Path, least: float | None, greatest: float | None, direction: str
) -> None:
    written = GPTfluenceConfig(metric="x", latent="value", least=least, greatest=greatest, direction=direction)
    written.save_pretrained(tmp_path)
    config = GPTfluenceConfig.from_pretrained(tmp_path)
    ends = (-INFINITE if least is None else least, INFINITE if greatest is None else greatest)
    assert (config.scale, config.higher_is_better) == (Scale("value", *ends), direction == "higher")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metric": "x"}, "metric='x' must be one of loss, accuracy, bleu, rougeL, or latent must say"),
        ({"metric": "x", "latent": "odds"}, "latent='odds' must be one of value, log-odds"),
        ({"latent": "value", "direction": "up"}, "direction='up' must be one of higher, lower"),
        ({"latent": "value", "least": 1.0, "greatest": 1.0}, "least=1.0 must be below greatest=1.0"),
        ({"latent": "value", "least": float("nan")}, "least=nan must be a number"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GPTfluenceConfig(**fields)  # type: ignore[arg-type]


def test_the_dataset_is_that_of_all_runs(dataset: str) -> None:
    assert read_dynamics(dataset, CONFIG, "exact_match").values.shape[0] == RUNS
