"""Bands hold what they promise on new runs, for both dynamics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.configs import split_of
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.hub.source import BUNDLED
from simulator.evaluation import EvaluateSettings, evaluate
from simulator.evaluation.simulated import Simulated
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import visit_shares
from simulator.model.intervals import band_arrays, coverage, half_width
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.trajectories import Band
from simulator.training import TrainSettings, leave_one_run_out, markov_fit, memory_fit, memory_states, train_simulator
from simulator.training.markov_data import MarkovData
from simulator.training.markov_fit import markov_residuals
from simulator.training.markov_training import train_markov
from simulator.training.trained import Trained

CONFIG = "mini_sentiment_nano"


def test_coverage_is_the_mean_over_runs_with_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    truth, low, high = rng.normal(size=(3, 5, 4)), np.full((3, 5, 4), -1.0), np.full((3, 5, 4), 0.7)
    shares = []
    for run in range(3):
        inside = [low[run, s, m] <= truth[run, s, m] <= high[run, s, m] for s in range(5) for m in range(4)]
        shares.append(sum(inside) / 20)
    found = coverage(truth, low, high)
    assert found.runs == pytest.approx(shares)
    assert found.share == pytest.approx(np.mean(shares))
    assert found.uncertainty == pytest.approx(np.std(shares, ddof=1) / 3**0.5)
    assert coverage(truth[:1], low[:1], high[:1]).uncertainty is None
    with pytest.raises(ValueError, match="one shape"):
        coverage(truth, low[:2], high)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_bands_of_residuals_cover_new_residuals_of_the_same_kind(level: float) -> None:
    rng = np.random.default_rng(0)
    runs, steps, tests = 27, 9, 30
    size = np.linspace(0.5, 2, steps) * rng.uniform(0.2, 3, (tests, 1))

    def residuals(count: int) -> np.ndarray:
        # What a run adds to all of its residuals makes runs, not values, the unit that is exchangeable.
        own = rng.gamma(4, 0.25, (count, 1, 1))
        return own * size * rng.normal(size=(count, tests, steps))

    arrays = band_arrays(residuals(runs), np.full((runs, tests, steps), np.nan), np.arange(steps), 0)
    assert arrays["band_scale"].shape == (steps, tests)
    held = [torch.from_numpy(arrays[name]) for name in ("band_scale", "band_scores")]
    width = half_width(level, runs, *held).numpy().T
    new = residuals(400)
    found = coverage(new, np.broadcast_to(-width, new.shape), np.broadcast_to(width, new.shape))
    assert level - 0.04 < found.share < level + 0.08
    assert np.corrcoef(width.ravel(), size.ravel())[0, 1] > 0.95


def test_given_values_do_not_count_and_unmeasured_steps_are_between() -> None:
    residuals = np.ones((5, 2, 3))
    residuals[..., 0] = 100.0
    arrays = band_arrays(residuals, np.full_like(residuals, np.nan), np.array([0, 4, 8]), 1)
    np.testing.assert_allclose(arrays["band_scale"], np.ones((9, 2)))
    np.testing.assert_allclose(arrays["band_scores"], 1.0)


def test_levels_that_so_few_runs_cannot_give_are_refused() -> None:
    scales, scores = torch.ones(2), torch.linspace(0, 1, 513)
    assert half_width(0.9, 9, scales, scores).tolist() == [1.0, 1.0]
    for level in (0.91, 0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"at most 0\.9"):
            half_width(level, 9, scales, scores)
    with pytest.raises(ValueError, match="no bands"):
        half_width(0.5, 0, scales, scores)
    with pytest.raises(ValueError, match="no bands"):
        half_width(0.5, 9, scales, scores * float("nan"))


@pytest.mark.parametrize("name", ["memory", "markov", "markov_2"])
def test_simulate_gives_a_band(trained: dict[str, str], dataset: Path, name: str) -> None:
    model = GPTfluenceSimulator.from_pretrained(trained[name])
    runs = read_dynamics(dataset, CONFIG, "loss").split("test")
    order = model.config.order
    initial = runs.values[0, :, :order]
    plain = model.simulate(runs.curricula[0], initial=initial)
    narrow, wide = (model.simulate(runs.curricula[0], initial=initial, interval=p) for p in (0.5, 0.8))
    assert isinstance(wide, Band)
    torch.testing.assert_close(wide.prediction, plain)
    torch.testing.assert_close(wide.low[:, :order], plain[:, :order])
    torch.testing.assert_close(wide.high[:, :order], plain[:, :order])
    assert (wide.low >= 0).all()
    assert (wide.low[:, order:] <= narrow.low[:, order:]).all()
    assert (wide.high[:, order:] > narrow.high[:, order:]).all()
    assert (narrow.high[:, order:] > plain[:, order:]).all()


def test_bands_of_the_range_of_the_metric_and_of_other_lengths(
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator],
    make_curricula: Callable[..., list[Curriculum]],
) -> None:
    model = make_model(make_config("memory", metric="accuracy", calibration_runs=9))
    model.dynamics.baseline.mul_(0.1)
    model.band_scale.fill_(2.0)
    model.band_scores.fill_(1.0)
    found = model.simulate(make_curricula(0, 1, 9, 7)[0], learning_rate=[1e-3] * 9, interval=0.9, initial=[0, 1, 0, 1])
    assert found.low[:, 1:].max() == 0
    assert found.high[:, 1:].min() == 1
    assert found.low.shape == (4, 10)


@pytest.mark.usefixtures("quick_markov")
def test_markov_residuals_are_of_runs_and_examples_left_out(dataset: Path) -> None:
    runs = read_dynamics(dataset, CONFIG, "loss")
    rng = np.random.default_rng(0)
    pool, test = (rng.normal(size=(len(part), 8)).astype(np.float32) for part in (runs.pool, runs.test))
    config = GPTfluenceConfig(encoder_width=8, batch_size=2)
    choice, how = markov_fit.choices()[0], markov_fit.MarkovTraining()
    training, validation = (MarkovData.of(runs.split(split), pool, test) for split in ("train", "validation"))
    [(seen, unseen)] = markov_residuals(config, [training], [validation], choice, how)
    assert seen.shape == unseen.shape == (7, *runs.values.shape[1:])
    assert (np.isfinite(seen) != np.isfinite(unseen)).all()
    every = runs.split("train", "validation")
    # In the order of the residuals: training runs, then validation runs.
    every = every.take(sorted(range(7), key=lambda at: split_of(every.runs[at]) == "validation"))
    # The first fold by hand: runs 0 and 5 and test examples 0 and 5 are left out, runs 1 and 6 stop.
    kept = [1, 2, 3, 4]

    def part(which: list[int]) -> MarkovData:
        data = MarkovData.of(every.take(which), pool, test)
        return replace(data, values=data.values[:, kept], test=data.test[kept])

    dynamics = train_markov(config, [part([2, 3, 4])], [part([1, 6])], choice, how).dynamics
    shares = visit_shares(every.take([0, 5]).curricula, [example.id for example in runs.pool])
    truth = torch.from_numpy(every.values[[0, 5]])
    with torch.no_grad():
        predicted = dynamics(shares, torch.from_numpy(pool), torch.from_numpy(test), truth[..., :1])
    residual = (truth - predicted).numpy()
    np.testing.assert_allclose(seen[[0, 5]][:, kept], residual[:, kept], atol=1e-5)
    np.testing.assert_allclose(unseen[[0, 5]][:, [0, 5]], residual[:, [0, 5]], atol=1e-5)


@pytest.mark.parametrize("name", ["memory", "markov"])
def test_rows_of_simulators_have_the_coverage_of_the_held_out_runs(
    trained: dict[str, str], dataset: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eight runs give no band of 90%; as many as the model says were left out do.
    model = GPTfluenceSimulator.from_pretrained(trained[name])
    held_out = read_dynamics(dataset, CONFIG, "loss").split("test")
    assert model.config.calibration_runs == 7
    assert Simulated(model).coverage(held_out, 1) is None
    found = Simulated(model).coverage(held_out, 1, level=0.8)
    assert found is not None
    inside = []
    for run, curriculum in enumerate(held_out.curricula):
        band = model.simulate(curriculum, held_out.pool, held_out.test, held_out.values[run, :, :1], interval=0.8)
        truth = held_out.values[run]
        inside.append(((truth >= band.low.numpy()) & (truth <= band.high.numpy()))[:, 1:].mean())
    assert found.runs == pytest.approx(inside)
    monkeypatch.setattr("simulator.evaluation.simulated.Simulated.coverage", lambda *arguments: found)
    evaluation = evaluate(EvaluateSettings(str(dataset), CONFIG, models=(trained[name],), baselines=("mean_curve",)))
    rows = {row.method: row for row in evaluation.rows}
    assert rows["mean_curve"].coverage is None
    assert rows[Simulated(model).name].coverage == found.share
    assert rows[Simulated(model).name].coverage_uncertainty == found.uncertainty


def test_a_new_model_has_bands_for_as_many_runs_as_were_left_out(dataset: Path) -> None:
    model = train_simulator(TrainSettings(str(dataset), CONFIG, encoder="label")).model
    assert model.config.calibration_runs == 7
    assert torch.isfinite(model.band_scale).all()
    assert (model.band_scores.diff() >= 0).all()


def shipped(runs: Dynamics, metric: str, without: int | None = None) -> Trained:
    """A memory simulator of these runs with one setting, so that fits without a run have the same."""
    kept = [at for at in range(len(runs.runs)) if at != without]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(memory_fit, "FILTERS", (memory_states.Filters((0.5, 1.0), (0.0,), (0.9,), (0.0,)),))
        monkeypatch.setattr(memory_fit, "COMPONENTS", (2,))
        monkeypatch.setattr(memory_fit, "RIDGES", (1e-9,))
        # States are scaled by all runs, which would matter to a larger penalty. All of an effect is taken: which share
        # shows is found over all runs, and not found again without one.
        monkeypatch.setattr(leave_one_run_out, "shrinkage", lambda products, squares, runs: np.ones_like(products))
        return train_simulator(TrainSettings("", runs.config, metric, encoder="label"), runs=runs.take(kept))


@pytest.mark.parametrize(("metric", "first_step"), [("loss", 0), ("bleu", 0), ("accuracy", 1)])
def test_residuals_are_those_of_the_simulator_that_is_shipped(
    make_dynamics: Callable[..., Dynamics],
    make_curricula: Callable[..., list[Curriculum]],
    metric: str,
    first_step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    count, steps, pool, tests = 8, 12, 10, 6
    # First values differ by run and last; effects of single runs are beyond the limit; values meet the range's end.
    size = {"loss": 1.0, "bleu": 30.0, "accuracy": 0.5}[metric]
    start = rng.normal(0, 0.3 * size, (count, tests, 1))
    noise = rng.standard_t(2, (count, tests, steps + 1)) * 0.2 * size
    values = (size + start + noise).clip(0, 1 if metric == "accuracy" else None)
    runs = make_dynamics(
        make_curricula(0, count, steps, pool),
        values[..., first_step:],
        pool,
        range(first_step, steps + 1),
        metric=metric,
    )
    held: list[np.ndarray] = []
    monkeypatch.setattr(
        "simulator.training.train.band_arrays", lambda seen, *others: (held.append(seen), band_arrays(seen, *others))[1]
    )
    shipped(runs, metric)
    [residuals] = held[:1]
    every = runs.split("train", "validation")
    assert residuals.shape == every.values.shape
    for at, name in enumerate(every.runs):
        model = shipped(runs, metric, runs.runs.index(name)).model
        predicted = model.simulate(
            every.curricula[at], every.pool, every.test, every.values[at, :, 0], every.learning_rate[at].tolist()
        )
        expected = every.values[at] - predicted[:, torch.from_numpy(every.step)].numpy()
        np.testing.assert_allclose(residuals[at], expected, atol=1e-4 * size)
    assert (residuals[..., 0] == 0).all()


@pytest.mark.parametrize("own", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("runs", [9, 10, 27])
def test_a_band_of_90_percent_holds_90_percent_of_new_runs_however_few_were_left_out(runs: int, own: float) -> None:
    rng = np.random.default_rng(0)
    steps, tests = 12, 25
    size = np.linspace(0.5, 2, steps) * rng.uniform(0.2, 3, (tests, 1))

    def residuals(count: int) -> np.ndarray:
        # A size of each run's own: at 0 all runs are alike.
        return np.exp(own * rng.uniform(-0.5, 0.5, (count, 1, 1))) * size * rng.normal(size=(count, tests, steps))

    shares = []
    for _ in range(20):
        arrays = band_arrays(residuals(runs), np.full((runs, tests, steps), np.nan), np.arange(steps), 0)
        held = [torch.from_numpy(arrays[name]) for name in ("band_scale", "band_scores")]
        width = half_width(0.9, runs, *held).numpy().T
        shares.append((np.abs(residuals(100)) <= width).mean())
    # The quantile at 0.9 (R + 1) / R would be 0.99 for ten runs, and the largest score of all for nine.
    assert 0.87 < np.mean(shares) < 0.93


@pytest.mark.parametrize(
    ("config", "metric"),
    [
        pytest.param("mini_sentiment_nano", "loss", marks=pytest.mark.slow),
        ("mini_sentiment_nano", "accuracy"),
        pytest.param("mini_triples_nano", "rougeL", marks=pytest.mark.slow),
    ],
)
def test_bands_of_a_bundled_config_hold_what_they_promise(config: str, metric: str) -> None:
    runs = read_dynamics(BUNDLED, config, metric)
    model = train_simulator(TrainSettings(str(BUNDLED), config, metric), runs=runs).model
    found = Simulated(model).coverage(runs.split("test"), 1)
    assert found is not None
    assert 0.85 <= found.share <= 0.95
    assert all(0.8 <= share <= 0.97 for share in found.runs)
