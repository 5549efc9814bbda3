"""A metric that is measured every few updates: one step of markov spans them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.dataset import read_dynamics
from simulator.evaluation.simulated import Simulated
from simulator.model.curricula import measured_steps
from simulator.training import TrainSettings, train_simulator


def test_measured_steps_are_every_stride_and_the_last() -> None:
    assert measured_steps(8, 4) == [0, 4, 8]
    assert measured_steps(9, 4) == [0, 4, 8, 9]
    assert measured_steps(3, 1) == [0, 1, 2, 3]


@pytest.mark.usefixtures("quick_markov")
def test_simulating_a_curriculum_agrees_with_evaluating_its_run(dataset: Path) -> None:
    settings = TrainSettings(str(dataset), "mini_triples_nano", "rougeL", dynamics="markov", encoder="label")
    model = train_simulator(settings).model
    runs = read_dynamics(dataset, "mini_triples_nano", "rougeL").split("test")
    assert model.config.stride == 4
    evaluated = Simulated(model).predict(runs)[0]
    simulated = model.simulate(runs.curricula[0], initial=runs.values[0, :, 0])
    torch.testing.assert_close(simulated[:, runs.step], torch.from_numpy(evaluated))
    between = (simulated[:, 0] + simulated[:, 4]) / 2
    np.testing.assert_allclose(simulated[:, 2], between, rtol=1e-4)
