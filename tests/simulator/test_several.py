"""Simulators of several configs and metrics: parts, what they share, saving, evaluating."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gptdynamics.dataset import read_dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator import GPTfluenceConfig, GPTfluenceSimulator
from simulator.evaluation import EvaluateSettings, evaluate
from simulator.evaluation.simulated import Simulated, load_simulator, simulated_of
from simulator.model.configuration_gptfluence import FIELDS, PART, SHARED
from simulator.training import TrainSettings, train_simulator
from simulator.training.trained import Trained
from tests.simulator.conftest import write_runs

SENTIMENT, TRIPLES = "mini_sentiment_nano", "mini_triples_nano"
GROUPS = [(SENTIMENT, "loss"), (SENTIMENT, "accuracy"), (TRIPLES, "loss"), (TRIPLES, "rougeL")]


def settings_of(dataset: Path, dynamics: str, **changes: object) -> TrainSettings:
    several = {"config": (SENTIMENT, TRIPLES), "metric": ("loss", "accuracy", "rougeL")}
    return TrainSettings(**({"dataset": str(dataset), "dynamics": dynamics, "encoder": "label"} | several | changes))


@pytest.fixture(scope="module")
def several(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Trained, Path]]:
    """Simulators of two configs with two metrics each, and where they are saved."""
    from tests.simulator.conftest import set_quick_markov

    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_quick_markov(monkeypatch)
        for name, changes in {
            "memory": {},
            "markov": {"order": 2},
            "index": {"dynamics": "markov", "encoder": "index"},
        }.items():
            settings = settings_of(dataset, **({"dynamics": name} | changes))
            folder = tmp_path_factory.mktemp(name)
            trained = train_simulator(settings)
            trained.save(folder, settings)
            found[name] = trained, folder
    return found


EACH = pytest.mark.parametrize("name", ["memory", "markov", "index"])


@EACH
def test_each_config_is_trained_on_the_metrics_it_has(several: dict[str, tuple[Trained, Path]], name: str) -> None:
    trained, _ = several[name]
    assert trained.model.config.groups == [(each.config, each.metric) for each in trained.fitted] == GROUPS
    assert all(np.isfinite(each.error) for each in trained.fitted)


@EACH
def test_every_part_survives_saving(several: dict[str, tuple[Trained, Path]], name: str, dataset: Path) -> None:
    trained, folder = several[name]
    loaded = load_simulator(str(folder))
    for config, metric in GROUPS:
        runs = read_dynamics(dataset, config, metric).split("test")
        before, after = (simulated_of(model, str(folder), runs).predict(runs) for model in (trained.model, loaded))
        assert np.isfinite(before).all()
        np.testing.assert_array_equal(before, after)
        alone = loaded.part(config, metric)
        initial = runs.values[0, :, : alone.config.order]
        arguments = {"initial": initial, "config": config, "metric": metric}
        torch.testing.assert_close(
            loaded.simulate(runs.curricula[0], **arguments), alone.simulate(runs.curricula[0], initial=initial)
        )
        assert loaded.what_if(runs.take([0])).simulate().shape == (len(runs.test), runs.step[-1] + 1)


def test_a_part_can_be_saved_as_a_simulator_of_its_own(
    several: dict[str, tuple[Trained, Path]], tmp_path: Path, dataset: Path
) -> None:
    model = several["markov"][0].model.part(TRIPLES, "rougeL")
    model.save_pretrained(tmp_path)
    runs = read_dynamics(dataset, TRIPLES, "rougeL").split("test")
    found = simulated_of(load_simulator(str(tmp_path)), None, runs).predict(runs)
    np.testing.assert_array_equal(found, simulated_of(several["markov"][0].model, None, runs).predict(runs))


def test_memory_of_several_is_memory_of_each(several: dict[str, tuple[Trained, Path]], dataset: Path) -> None:
    for place, (config, metric) in enumerate(GROUPS):
        alone = train_simulator(settings_of(dataset, "memory", config=config, metric=metric))
        fitted = several["memory"][0].fitted[place]
        assert (fitted.error, fitted.choice) == (alone.error, alone.choice)
        part = several["memory"][0].model.part(config, metric)
        for tensor, value in part.state_dict().items():
            assert torch.equal(value, alone.model.state_dict()[tensor]), tensor


def test_configs_share_the_factors_of_a_metric_and_metrics_have_their_own(
    several: dict[str, tuple[Trained, Path]],
) -> None:
    model = several["markov"][0].model
    assert model.config.heads == ["loss", "accuracy", "rougeL"]
    assert model.dynamics.train_side.shape[0] == 3 * (2 + 1)
    losses, accuracy = (
        (model.part(config, "loss").dynamics.train_side for config in (SENTIMENT, TRIPLES)),
        model.part(SENTIMENT, "accuracy"),
    )
    first, second = losses
    assert torch.equal(first, second)
    assert not torch.equal(first, accuracy.dynamics.train_side)


def test_a_vector_is_stored_once(several: dict[str, tuple[Trained, Path]]) -> None:
    model = several["memory"][0].model
    keys = {key for place in range(4) for key in model.config.part(place).pool_keys}
    assert model.pool_vectors.size(0) == len(keys) < sum(len(model.config.part(at).pool_keys) for at in range(4))


@pytest.mark.parametrize("name", ["memory", "markov"])
def test_evaluate_scores_the_part_of_its_config_and_metric(
    several: dict[str, tuple[Trained, Path]], name: str, dataset: Path
) -> None:
    folder = str(several[name][1])
    settings = EvaluateSettings(str(dataset), TRIPLES, "rougeL", (folder,), ("mean_curve",))
    row = evaluate(settings).rows[-1]
    assert (row.model, row.config, row.metric) == (folder, TRIPLES, "rougeL")
    assert row.mse is not None
    with pytest.raises(SettingsError, match=r"knows nothing of bleu of .*trained on: loss of mini_sentiment_nano"):
        evaluate(EvaluateSettings(str(dataset), TRIPLES, "bleu", (folder,), ("mean_curve",)))


def test_which_part_is_meant_must_be_said(several: dict[str, tuple[Trained, Path]], dataset: Path) -> None:
    model = several["memory"][0].model
    with pytest.raises(ValueError, match=r"several parts; give config and metric of one: loss of mini_sentiment_nano"):
        model.simulate([[0, 1]] * 10, metric="loss")
    with pytest.raises(ValueError, match=r"nothing of bleu of any config; it was trained on: .*rougeL of mini_triples"):
        model.part(metric="bleu")
    assert model.part(metric="accuracy").config.dataset_config == SENTIMENT
    with pytest.raises(ValueError, match="predicts by its parts"):
        model(torch.zeros(1, 1, 1), torch.zeros(1, 1), model.pool_vectors, model.test_vectors, torch.zeros(1), None)


def test_a_run_of_another_metric_or_base_model_is_refused(trained: dict[str, str], dataset: Path) -> None:
    model = GPTfluenceSimulator.from_pretrained(trained["memory"])
    accuracy = read_dynamics(dataset, SENTIMENT, "accuracy").take([0])
    with pytest.raises(ValueError, match=r"knows nothing of accuracy .*trained on: loss of mini_sentiment_nano"):
        model.what_if(accuracy)
    other = read_dynamics(dataset, "mini_sentiment_tiny", "loss").take([0])
    with pytest.raises(ValueError, match=r"trained on runs of nano 0123456789ab, this run is of .*0123456789ab"):
        model.what_if(other)


def test_runs_whose_texts_became_other_tokens_or_targets_are_refused(trained: dict[str, str], dataset: Path) -> None:
    model = GPTfluenceSimulator.from_pretrained(trained["memory"])
    run = read_dynamics(dataset, SENTIMENT, "loss").take([0])
    assert model.config.token_rule == run.token_rule == "joined"
    other = replace(run, token_rule="separate")
    with pytest.raises(ValueError, match="made into tokens and targets in another way"):
        model.what_if(other)
    with pytest.raises(SettingsError, match="tokens and targets: made of the texts in another way"):
        Simulated(model).check(other)
    # Simulators of earlier versions do not say.
    model.config.token_rule = ""
    Simulated(model).check(other)


def test_a_model_saved_before_there_were_several_still_loads(trained: dict[str, str], tmp_path: Path) -> None:
    model = GPTfluenceSimulator.from_pretrained(trained["markov"])
    # As it was: without a digest, too.
    PreTrainedModel.save_pretrained(model, tmp_path)
    path = tmp_path / "config.json"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("parts", "kind")}
    path.write_text(json.dumps(old))
    loaded, initial = load_simulator(str(tmp_path)), np.ones(len(model.config.test_ids))
    assert loaded.config.groups == [(SENTIMENT, "loss")]
    curriculum = [[0, 1]] * 10
    assert torch.equal(loaded.simulate(curriculum, initial=initial), model.simulate(curriculum, initial=initial))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": ("loss", "loss")}, "none twice"),
        ({"config": ()}, "at least one"),
        ({"config": (SENTIMENT, "mini_sentiment_two"), "metric": "bleu"}, "mini_sentiment_nano has no metric 'bleu'"),
        ({"metric": ("loss", "f1")}, "no metric 'f1' in mini_sentiment_nano, mini_triples_nano"),
    ],
)
def test_configs_and_metrics_that_make_no_sense_are_refused(
    dataset: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        train_simulator(settings_of(dataset, "memory", **changes))


def test_vectors_of_different_base_models_cannot_share_a_model(dataset: Path) -> None:
    settings = settings_of(
        dataset, "memory", config=(SENTIMENT, "mini_sentiment_tiny"), metric="loss", encoder="gradient"
    )
    with pytest.raises(DataError, match=r"mini_sentiment_nano and mini_sentiment_tiny cannot share one model: encoder"):
        train_simulator(settings)


def test_every_setting_is_shared_or_of_a_part() -> None:
    assert set(GPTfluenceConfig().to_dict()) >= set(FIELDS)
    assert set(FIELDS) - {"parts"} == {*SHARED, *PART}
    assert not set(SHARED) & set(PART)


def test_tangent_of_configs_with_pools_of_different_sizes_predicts_as_each_alone(tmp_path: Path) -> None:
    write_runs(tmp_path / "data", SENTIMENT, "nano", 8, kernels=2)
    write_runs(tmp_path / "data", TRIPLES, "nano", 8, kernels=1, pool_size=21)
    both = TrainSettings(str(tmp_path / "data"), (SENTIMENT, TRIPLES), ("loss", "bleu"), dynamics="tangent")
    trained = train_simulator(both)
    trained.save(tmp_path / "both", both)
    loaded = load_simulator(str(tmp_path / "both"))
    for config, metric in [(SENTIMENT, "loss"), (TRIPLES, "loss"), (TRIPLES, "bleu")]:
        runs = read_dynamics(tmp_path / "data", config, metric)
        own = train_simulator(TrainSettings(str(tmp_path / "data"), config, metric, dynamics="tangent"), runs=runs)
        test = runs.split("test")
        alone = Simulated(own.model)
        together = simulated_of(loaded, "both", test)
        np.testing.assert_allclose(together.predict(test), alone.predict(test), rtol=1e-5, atol=1e-6)
        assert together.coverage(test, 1, 0.5) == alone.coverage(test, 1, 0.5)
        assert loaded.what_if(test).drop(test.curricula[0][0][:1]).simulate().shape == (len(test.test), 11)
