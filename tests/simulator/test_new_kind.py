"""A new kind of dynamics is a class for the model, a class that fits it, and a line for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from simulator import GPTfluenceConfig, GPTfluenceSimulator
from simulator.attribution import leave_out, visit_derivatives
from simulator.evaluation.simulated import Simulated
from simulator.hub.card import render_model_card
from simulator.model import kinds
from simulator.model.dynamics import DynamicsModule, EncodedExamples, Field, SimulationInputs
from simulator.training import TrainSettings, fitting, train_simulator
from simulator.training.fitter import Fits, Fitter, OnPhase, OnProgress, Part
from simulator.training.session import Session
from simulator.training.trained import Fitted, Trained

RUNS, STEPS, POOL, TESTS = 6, 6, 7, 4


class SlopeDynamics(DynamicsModule):
    """A first value that moves by a number of each test example and the shares of examples with an odd place."""

    name = "slope"
    fields = {"sharpness": Field("number", 0, 1.0)}
    slope: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__()
        self.sharpness = config.sharpness
        self.register_buffer("slope", torch.zeros(len(config.test_keys)))

    def trajectories(self, inputs: SimulationInputs) -> torch.Tensor:
        factors = self.input_factors(inputs.examples)
        summed = torch.einsum("rtn,fnm->frmt", inputs.visits, factors)
        return torch.stack([self.from_factors(summed[:, run], inputs) for run in range(len(inputs.visits))])

    def input_factors(self, examples: EncodedExamples) -> torch.Tensor:
        odd = (torch.arange(len(examples.pool)) % 2).to(examples.pool)
        return (self.sharpness * odd[:, None] * self.slope[examples.seen]).unsqueeze(0)

    def from_factors(self, factors: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        assert inputs.initial is not None
        first = inputs.initial[0, :, :1]
        return torch.cat([first, first + factors[0].cumsum(-1)], -1)


class SlopeFitter(Fitter):
    """The slope is the mean change of the training runs."""

    dynamics = "slope"

    def fit(
        self, settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
    ) -> Fits:
        fitted, residuals, own = [], [], []
        for part in parts:
            part.config.sharpness = 2.0
            values = part.runs.split("train", "validation").values
            slope = (values[..., -1] - values[..., 0]).mean(0) / STEPS
            own.append({"dynamics.slope": torch.from_numpy(slope)})
            fitted.append(Fitted(part.config.dataset_config, part.config.metric, {"sharpness": 2.0}, 0.25, [{}]))
            line = values[..., :1] + slope[:, None] * np.arange(STEPS + 1)
            residuals.append((values - line, values - line))
        return Fits(fitted, residuals, {}, own)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """One line in each registry."""
    kinds.DYNAMICS.append(SlopeDynamics)
    fitting.FITTERS.append(SlopeFitter)
    yield
    kinds.DYNAMICS.remove(SlopeDynamics)
    fitting.FITTERS.remove(SlopeFitter)


@pytest.fixture
def runs(make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list]) -> Dynamics:
    values = np.random.default_rng(0).random((RUNS, TESTS, STEPS + 1)) + 2
    return make_dynamics(make_curricula(0, RUNS, STEPS, POOL), values, POOL)


@pytest.fixture
def settings() -> TrainSettings:
    return TrainSettings("made/up", "mini_sentiment_nano", dynamics="slope", encoder="label")


@pytest.fixture
def trained(settings: TrainSettings, runs: Dynamics) -> Trained:
    return train_simulator(settings, runs=runs)


def by_hand(runs: Dynamics, curriculum: list[list[int]], run: int) -> np.ndarray:
    """Trajectories `[M, steps + 1]` of the made-up kind."""
    chosen = runs.split("train", "validation").values
    slope = (chosen[..., -1] - chosen[..., 0]).mean(0) / STEPS
    place = {example.id: index for index, example in enumerate(runs.pool)}
    values = [runs.values[run, :, 0]]
    for batch in curriculum:
        odd = np.mean([place[key] % 2 for key in batch])
        values.append(values[-1] + 2.0 * odd * slope)
    return np.stack(values, axis=-1)


def test_it_is_saved_loaded_and_simulates(
    trained: Trained, settings: TrainSettings, runs: Dynamics, tmp_path: Path
) -> None:
    trained.save(tmp_path / "model", settings)
    model = GPTfluenceSimulator.from_pretrained(tmp_path / "model").eval()
    assert (model.config.dynamics, model.config.sharpness, model.history) == ("slope", 2.0, 1)
    curriculum = runs.curricula[1]
    found = model.simulate(curriculum, initial=runs.values[1, :, 0])
    np.testing.assert_allclose(found.numpy(), by_hand(runs, curriculum, 1), rtol=1e-5)
    band = model.simulate(curriculum, initial=runs.values[1, :, 0], interval=0.5)
    low, high = band.low, band.high
    assert bool((low[:, 1:] <= found[:, 1:]).all()) and bool((found[:, 1:] <= high[:, 1:]).all())
    predicted = Simulated(model).predict(runs.take([1]))
    np.testing.assert_allclose(predicted[0], by_hand(runs, curriculum, 1), rtol=1e-5)
    assert Simulated(model).name == "slope_label"


def test_it_is_asked_what_if_and_whose_influence(trained: Trained, runs: Dynamics) -> None:
    run = trained.model.what_if(runs.take([1]))
    key = next(key for batch in runs.curricula[1] for key in batch if len(set(batch)) > 1)
    curriculum = runs.curricula[1]
    steps = [step for step, batch in enumerate(curriculum, 1) if key in batch and len(set(batch)) > 1][:1]
    changed = [
        [other for other in batch if other != key or step not in steps] for step, batch in enumerate(curriculum, 1)
    ]
    without = by_hand(runs, changed, 1)
    np.testing.assert_allclose(run.drop([key], steps).simulate().numpy(), without, rtol=1e-5)
    size = 1e-2
    left_out = leave_out(run, [key])
    gone = [[other for other in batch if other != key] for batch in curriculum]
    effect = by_hand(runs, curriculum, 1) - by_hand(runs, gone, 1)
    np.testing.assert_allclose(left_out.final[0].numpy(), effect[:, -1], atol=1e-5)
    derivatives = visit_derivatives(run)
    pairs = zip(derivatives.steps, derivatives.pool_ids, strict=True)
    visit = [index for index, pair in enumerate(pairs) if pair == (steps[0], key)]
    heavier = run.reweigh({key: 1 + size}, steps).simulate() - run.reweigh({key: 1 - size}, steps).simulate()
    np.testing.assert_allclose(derivatives.final[visit].sum(0).numpy(), heavier[:, -1].numpy() / 2 / size, atol=1e-3)


def test_its_card_says_how_it_was_fitted(trained: Trained, settings: TrainSettings, tmp_path: Path) -> None:
    record = {
        "settings": {"dataset": None, "config": "mini_sentiment_nano", "dynamics": "slope"},
        "fitted": [{"config": "mini_sentiment_nano", "metric": "loss", "tried": [{}], "error": 0.25}],
    }
    card = render_model_card("ada/slope", trained.model.config, record, [], None)
    assert "Its kind is `slope`" in card and "runs left out, one at a time" in card


def test_several_configs_keep_its_own_fields(trained: Trained) -> None:
    one = trained.model.config
    other = GPTfluenceConfig(**(one.to_dict() | {"metric": "accuracy", "latent": None, "sharpness": 3.0}))
    both = GPTfluenceConfig.of_parts([one, other])
    assert [both.part(place).sharpness for place in (0, 1)] == [2.0, 3.0]
    with pytest.raises(ValueError, match="sharpness='x' must be a number"):
        GPTfluenceConfig(dynamics="slope", sharpness="x")


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="one of auto, memory, markov, tangent, slope"):
        TrainSettings("made/up", "mini_sentiment_nano", dynamics="other", encoder="label")
    with pytest.raises(ValueError, match="'memory', 'markov', 'tangent', 'slope'"):
        GPTfluenceConfig(dynamics="other")
    with pytest.raises(SettingsError, match="'other' must be one of 'memory', 'markov', 'tangent', 'slope'"):
        fitting.fitter_named("other")
    config = GPTfluenceConfig(dynamics="slope")
    config.dynamics = "other"
    with pytest.raises(ValueError, match="'other' must be one of 'memory', 'markov', 'tangent', 'slope'"):
        kinds.kind_of(config)
