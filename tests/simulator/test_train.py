"""From a dataset folder to a simulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.configs import split_of
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator import GPTfluenceSimulator
from simulator.baselines import MeanCurve, Persistence
from simulator.encoders import encode_cached, make_encoder
from simulator.evaluation.simulated import Simulated
from simulator.model.curricula import visit_shares
from simulator.model.example_encoding import content_key
from simulator.model.recurrence import markov_scan
from simulator.training import TrainSettings, markov_fit, memory_fit, train_simulator
from simulator.training.markov_data import MarkovData

CONFIG = "mini_sentiment_nano"


def settings_of(dataset: Path, **changes: object) -> TrainSettings:
    return TrainSettings(**({"dataset": str(dataset), "config": CONFIG, "encoder": "label"} | changes))


def squared_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.square(predicted[..., 1:] - truth[..., 1:]).mean())


@pytest.fixture(scope="module")
def runs(dataset: Path) -> Dynamics:
    return read_dynamics(dataset, CONFIG, "loss")


def test_memory_predicts_held_out_runs_far_better_than_the_mean_curve(dataset: Path, runs: Dynamics) -> None:
    trained = train_simulator(settings_of(dataset))
    held_out = runs.split("test")
    error = squared_error(Simulated(trained.model).predict(held_out), held_out.values)
    mean_curve = MeanCurve(runs.split("train", "validation")).predict(held_out)
    assert error < 0.2 * squared_error(mean_curve, held_out.values)


@pytest.mark.usefixtures("quick_markov")
def test_markov_is_trained_on_the_training_runs_and_beats_persistence(dataset: Path, runs: Dynamics) -> None:
    trained = train_simulator(settings_of(dataset, dynamics="markov"))
    validation = runs.split("validation")
    error = squared_error(Simulated(trained.model).predict(validation), validation.values)
    assert trained.error == pytest.approx(error, rel=1e-4)
    assert error < 0.5 * squared_error(Persistence().predict(validation), validation.values)


@pytest.mark.usefixtures("quick_markov")
@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_held_out_runs_change_nothing(dataset: Path, runs: Dynamics, dynamics: str) -> None:
    settings = settings_of(dataset, dynamics=dynamics)
    held_out = [at for at, run in enumerate(runs.runs) if split_of(run) == "test"]
    spoiled = runs.take(list(range(len(runs.runs))))
    spoiled.values[held_out] = 77.0
    first, second = train_simulator(settings, runs=runs).model, train_simulator(settings, runs=spoiled).model
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.usefixtures("quick_markov")
@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_the_model_knows_what_it_was_trained_on(dataset: Path, runs: Dynamics, dynamics: str) -> None:
    config = train_simulator(settings_of(dataset, dynamics=dynamics)).model.config
    assert (config.dynamics, config.metric, config.dataset_config) == (dynamics, "loss", CONFIG)
    assert (config.base_model, config.base_revision) == (runs.base_model, runs.base_revision)
    assert config.encoder == {"encoder": "label", "width": 64}
    assert config.pool_ids == [example.id for example in runs.pool]
    assert config.test_keys == [content_key(example) for example in runs.test]
    assert config.steps == len(config.learning_rate) == runs.learning_rate.shape[1]
    assert config.batch_size == 2


@pytest.mark.usefixtures("quick_markov")
@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_vectors_are_stored_with_the_model(dataset: Path, runs: Dynamics, dynamics: str) -> None:
    model = train_simulator(settings_of(dataset, dynamics=dynamics)).model
    encoder = make_encoder("label", runs.base_model)
    np.testing.assert_array_equal(model.pool_vectors.numpy(), encode_cached(encoder, runs.pool))
    np.testing.assert_array_equal(model.test_vectors.numpy(), encode_cached(encoder, runs.test))


@pytest.mark.usefixtures("quick_markov")
@pytest.mark.parametrize(
    "changes", [{}, {"dynamics": "markov", "order": 2}, {"dynamics": "markov", "projection": "mlp"}]
)
def test_a_run_is_predicted_as_simulate_predicts_it(dataset: Path, runs: Dynamics, changes: dict[str, object]) -> None:
    model = train_simulator(settings_of(dataset, **changes)).model
    held_out = runs.split("test")
    method = Simulated(model)
    [found] = method.predict(held_out)
    history = held_out.values[0, :, : method.history]
    alone = model.simulate(held_out.curricula[0], held_out.pool, held_out.test, history)
    np.testing.assert_allclose(found, alone.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("quick_markov")
def test_the_same_seed_gives_the_same_model_and_another_another(dataset: Path, runs: Dynamics) -> None:
    def weights(seed: int) -> torch.Tensor:
        settings = settings_of(dataset, dynamics="markov", seed=seed)
        return train_simulator(settings, runs=runs).model.dynamics.train_side

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("metric", ["bleu", "rougeL"])
def test_memory_of_a_metric_measured_every_four_updates(dataset: Path, metric: str) -> None:
    settings = settings_of(dataset, config="mini_triples_nano", metric=metric)
    model = train_simulator(settings).model
    runs = read_dynamics(dataset, "mini_triples_nano", metric)
    assert runs.step.tolist() == [0, 4, 8, 10]
    held_out = runs.split("test")
    [found] = Simulated(model).predict(held_out)
    alone = model.simulate(held_out.curricula[0], initial=held_out.values[0, :, 0])
    assert alone.shape == (len(runs.test), 11)
    np.testing.assert_allclose(found, alone[:, [0, 4, 8, 10]].numpy(), rtol=1e-5)


@pytest.mark.usefixtures("quick_markov")
def test_markov_of_a_metric_measured_every_four_updates_steps_from_one_measurement_to_the_next(
    dataset: Path,
) -> None:
    settings = settings_of(dataset, config="mini_triples_nano", metric="rougeL", dynamics="markov")
    model = train_simulator(settings).model
    held_out = read_dynamics(dataset, "mini_triples_nano", "rougeL").split("test")
    between = [held_out.curricula[0][begin:end] for begin, end in ((0, 4), (4, 8), (8, 10))]
    merged = [[key for batch in batches for key in batch] for batches in between]
    visits = visit_shares([merged], [example.id for example in held_out.pool])
    with torch.no_grad():
        factors = model.dynamics.batch_factors(visits, model.pool_vectors, model.test_vectors)
        wanted = markov_scan(factors[:-1], factors[-1], torch.from_numpy(held_out.values[..., :1]))
    np.testing.assert_allclose(Simulated(model).predict(held_out), wanted.numpy(), rtol=1e-5)
    alone = model.simulate(held_out.curricula[0], initial=held_out.values[0, :, 0]).numpy()
    for test, curve in enumerate(wanted[0].numpy()):
        np.testing.assert_allclose(alone[test], np.interp(range(11), [0, 4, 8, 10], curve), rtol=1e-5)


def test_markov_data_has_one_step_for_each_interval(dataset: Path) -> None:
    runs = read_dynamics(dataset, "mini_triples_nano", "bleu")
    pool, test = np.zeros((len(runs.pool), 3)), np.zeros((len(runs.test), 3))
    data = MarkovData.of(runs, pool, test)
    assert data.members.places.shape == (8, 3, 4 * 2)
    assert data.values.shape == (8, len(runs.test), 4)
    torch.testing.assert_close(data.members.shares.sum(-1), torch.ones(8, 3))


@pytest.mark.usefixtures("quick_markov")
@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_a_saved_model_stands_beside_a_record_of_its_training(dataset: Path, dynamics: str, tmp_path: Path) -> None:
    settings = settings_of(dataset, dynamics=dynamics)
    trained = train_simulator(settings)
    folder = tmp_path / "new" / "model"
    trained.save(folder, settings)
    record = json.loads((folder / "training.json").read_text())
    assert record["settings"] == asdict(settings)
    [fitted] = record["fitted"]
    assert (fitted["config"], fitted["metric"]) == (CONFIG, "loss")
    assert fitted["error"] == pytest.approx(trained.error)
    assert fitted["error"] == pytest.approx(min(tried["error"] for tried in fitted["tried"]))
    assert fitted["choice"].keys() <= fitted["tried"][0].keys()
    assert record["seconds"] >= 0
    runs = read_dynamics(dataset, CONFIG, "loss").split("test")
    loaded = GPTfluenceSimulator.from_pretrained(folder)
    np.testing.assert_array_equal(Simulated(loaded).predict(runs), Simulated(trained.model).predict(runs))


def test_a_model_is_not_saved_where_a_file_is(dataset: Path, tmp_path: Path) -> None:
    settings = settings_of(dataset)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*file"):
        train_simulator(settings).save(tmp_path / "file", settings)


@pytest.mark.usefixtures("quick_markov")
def test_phases_are_told_with_the_number_of_their_parts(dataset: Path) -> None:
    told: list[tuple[str, int]] = []
    ticks: list[str] = []
    settings = settings_of(dataset, dynamics="markov")
    train_simulator(settings, lambda *phase: told.append(phase), lambda: ticks.append(told[-1][0]))
    phases = [("encoding", 2), ("fitting", 1), ("runs left out", 5)]
    assert told == [(f"markov, label vectors: {name}", count) for name, count in phases]
    assert ticks == [name for name, count in told for _ in range(count)]


def test_runs_that_were_read_already_are_not_read_again(dataset: Path, runs: Dynamics) -> None:
    trained = train_simulator(settings_of(Path("/nowhere")), runs=runs)
    assert trained.model.config.dataset_config == CONFIG


def test_the_setting_with_the_least_error_is_reported(dataset: Path) -> None:
    trained = train_simulator(settings_of(dataset))
    assert len(trained.tried) == len(memory_fit.choices())
    assert trained.error == min(tried["error"] for tried in trained.tried)


@pytest.mark.usefixtures("quick_markov")
def test_values_that_are_given_are_not_searched(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markov_fit, "LEARNING_RATES", (1e-3, 1e-2))
    monkeypatch.setattr(markov_fit, "HIDDEN", (4, 8))
    trained = train_simulator(settings_of(dataset, dynamics="markov", learning_rate=2e-3, bands=False))
    assert [(tried["learning_rate"], tried["hidden"]) for tried in trained.tried] == [(2e-3, 4), (2e-3, 8)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dynamics": "lstm"}, r"dynamics='lstm'.*memory, markov"),
        ({"encoder": "bert"}, r"encoder 'bert'.*sentence, causal_lm, gradient, label, index"),
        ({"encoder": "index"}, "memory needs vectors that say which examples are similar"),
        ({"kind": "additive"}, "one of Simfluence's: give encoder index"),
        ({"encoder": "label", "pooling": "mean"}, "pooling='mean' is a setting of sentence"),
        ({"projection": "cubic"}, r"projection='cubic'.*linear, mlp"),
        ({"order": 0}, "order=0"),
        ({"hidden": 8}, "hidden=8 is of markov with vectors"),
        ({"dynamics": "markov", "learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"dynamics": "markov", "penalty": -1.0}, "penalty=-1.0 must be at least 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_of(Path("data"), **wrong)


def test_too_few_runs_are_refused(dataset: Path) -> None:
    with pytest.raises(DataError, match=r"at least 5.*there are 2: collect at least 6 runs"):
        train_simulator(settings_of(dataset, config="mini_sentiment_two"))
    with pytest.raises(DataError, match=r"no validation runs.*at least 6 runs \(it has 3\)"):
        train_simulator(settings_of(dataset, config="mini_sentiment_few", dynamics="markov"))


def test_runs_measured_at_uneven_steps_are_refused(
    make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list[Curriculum]]
) -> None:
    runs = make_dynamics(make_curricula(0, 4, 6, 8), np.ones((4, 3, 4)), 8, step=[0, 1, 4, 6])
    with pytest.raises(DataError, match=r"even steps: \[0, 1, 4, 6\]"):
        train_simulator(settings_of(Path("/nowhere")), runs=runs)


def test_runs_with_different_learning_rates_are_refused(
    make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list[Curriculum]]
) -> None:
    rates = np.full((6, 5), 1e-3)
    rates[3] *= 2
    values = np.ones((6, 3, 6))
    runs = make_dynamics(make_curricula(0, 6, 5, 8), values, 8, rates=rates)
    with pytest.raises(DataError, match="learning rates"):
        train_simulator(settings_of(Path("/nowhere")), runs=runs)
