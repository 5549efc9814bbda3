"""Training on a curriculum with empty batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import run_seed
from gptdynamics.runs import Bench

RATES = [1e-3, 8e-4, 6e-4, 4e-4]


def test_an_empty_batch_trains_as_a_run_without_it(
    rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    settings = make_settings(weight_decay=0.1)
    bench, entropy = Bench.load(settings, rows_folder), run_seed(settings, "0000")

    def weights(curriculum: list[list[int]], rates: list[float]) -> list[torch.Tensor]:
        steps = bench.weights(curriculum, rates, entropy)
        return [torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone() for model in steps]

    found = weights([[0, 1], [], [2, 3], []], RATES)
    wanted = weights([[0, 1], [2, 3]], [RATES[0], RATES[2]])
    assert not torch.equal(wanted[1], wanted[2])
    for step, updates in enumerate([0, 1, 1, 2, 2]):
        assert torch.equal(found[step], wanted[updates])


def test_a_run_is_measured_after_empty_batches_too(
    rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    settings = make_settings("rte_tiny", gradients="all", gradient_width=16)
    run = Bench.load(settings, rows_folder).run("0000", curriculum=[[0, 1], [], [2, 3]])
    assert run.step == [0, 1, 2, 3] and len(run.learning_rate) == 3
    np.testing.assert_array_equal(run.metrics["loss"][:, 1], run.metrics["loss"][:, 2])
    assert (run.metrics["loss"][:, 2] != run.metrics["loss"][:, 3]).any()
    for values in run.gradients.values():
        assert values.shape == (len(run.metrics["loss"]), 3)
        assert values[:, 0].any() and not values[:, 1].any() and values[:, 2].any()
