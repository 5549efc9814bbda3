"""The page's scripts simulate what Python simulates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.metrics import Metric
from simulator.evaluation.simulated import Simulated, load_simulator
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.what_if import WhatIf
from simulator.reporting.explorer.payload import View

POOL, TESTS, STEPS = 7, 4, 6
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "memory": ("memory", {"calibration_runs": 19}),
    "memory beyond its limit": ("memory", {}),
    "memory of accuracy": ("memory", {"metric": "accuracy", "calibration_runs": 19}),
    "memory of a metric of one's own": (
        "memory",
        {"metric": "drop", "latent": "value", "greatest": 0.5, "direction": "lower", "calibration_runs": 19},
    ),
    "memory first measured at 2": ("memory", {"first_step": 2}),
    "memory, two test examples unseen": ("memory", {"tests": 2, "encoder_width": 64, "components": 3}),
    "tangent": (
        "tangent",
        {"encoder_width": POOL, "grouping": "base_early_late", "calibration_runs": 19, "own_patterns": 3},
    ),
    "tangent beyond its limit": ("tangent", {"encoder_width": POOL, "metric": "accuracy"}),
    "markov": ("markov", {"calibration_runs": 19}),
    "markov mlp of order 3": ("markov", {"order": 3, "projection": "mlp"}),
    "markov of a table": ("markov", {"projection": "table", "encoder": {"encoder": "index"}, "encoder_width": 1}),
    "markov every 2 updates": ("markov", {"stride": 2}),
    "markov of order 2, every 2 updates from 1": ("markov", {"stride": 2, "first_step": 1, "order": 2}),
}
CHANGES: dict[str, tuple[str, Callable[[WhatIf], WhatIf]]] = {
    "as it was": ("batches", lambda run: run),
    "drop a visit": ("dropVisit(batches, 2, 1)", lambda run: run.drop([run.curriculum[1][1]], [2])),
    "drop an example": ("dropExample(batches, batches[0][0])", lambda run: run.drop([run.curriculum[0][0]])),
    "repeat": ("repeatVisit(batches, 3, 0)", lambda run: run.add([run.curriculum[2][0]], [3])),
    "move": (
        "moveVisit(batches, 1, 1, 5)",
        lambda run: run.drop([run.curriculum[0][1]], [1]).add([run.curriculum[0][1]], [5]),
    ),
    "empty a batch": (
        "dropVisit(dropVisit(batches, 3, 0), 3, 0)",
        lambda run: run.drop(run.curriculum[2], [3]),
    ),
    "empty the first batches": (
        "[[], [], ...batches.slice(2)]",
        lambda run: run.drop(run.curriculum[0], [1]).drop(run.curriculum[1], [2]),
    ),
    "empty batches 5 and 6": (
        "batches.map((batch, at) => (at === 4 || at === 5 ? [] : batch))",
        lambda run: run.drop(run.curriculum[4], [5]).drop(run.curriculum[5], [6]),
    ),
    "empty all batches": (
        "batches.map(() => [])",
        lambda run: run.drop({key for batch in run.curriculum for key in batch}),
    ),
    "add": ("addExample(batches, 6, 0)", lambda run: run.add([run.situation.pool_ids[0]], [6])),
}
# The examples of a batch differ.
CURRICULA = [[[0, 1], [2, 3], [4, 0], [5, 6], [1, 2], [3, 4]], [[6, 5], [4, 3], [2, 1], [6, 0], [5, 4], [3, 2]]]


@pytest.fixture(params=list(KINDS))
def view(
    request: pytest.FixtureRequest,
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator],
    make_dynamics: Callable[..., Dynamics],
) -> View:
    dynamics, changes = KINDS[request.param]
    model = make_model(make_config(dynamics, **changes))
    config = model.config
    if config.projection == "table":
        model.pool_vectors.copy_(torch.arange(POOL).unsqueeze(1))
        model.test_vectors.copy_(torch.arange(TESTS).unsqueeze(1))
    if "limit" in request.param:
        model.dynamics.limit.fill_(0.1)
    if config.metric == "accuracy":
        model.dynamics.baseline.mul_(0.02).add_(0.4)
    model.band_scale.abs_()
    model.band_scores.abs_()
    step = [*range(config.first_step, STEPS, config.stride), STEPS]
    values = np.random.default_rng(0).uniform(0, 1 if config.metric == "accuracy" else 3, (2, TESTS, len(step)))
    rates = np.array([config.learning_rate, [7e-4, 9e-4, 0.0, 2e-4, 0.0, 0.0]])
    runs = make_dynamics(CURRICULA, values, POOL, step=step, rates=rates, metric=config.metric)
    if config.metric == "drop":
        runs = replace(runs, own_metric=Metric("drop", greatest=0.5, higher_is_better=False))
    return View(runs, (Simulated(model),))


def test_a_changed_run_is_that_of_python(view: View, scripts: Callable) -> None:
    page = scripts(view)
    for run in range(2):
        as_run = view.simulators[0].simulator.what_if(view.runs.take([run]))
        for code, changed in CHANGES.values():
            found = page.simulated(run, code)
            assert np.isfinite(found).all() and (np.ptp(found) > 0 or "=> []" in code)
            np.testing.assert_allclose(found, changed(as_run).simulate().numpy(), rtol=1e-4, atol=1e-5, err_msg=code)


def test_runs_of_other_lengths_and_rates(view: View, scripts: Callable) -> None:
    longer = view.simulators[0].simulator.what_if(view.runs.take([0])).repeat(2)
    page = scripts(view)
    page.engine.eval(f"view.rates[view.runs[0].rates] = Float32Array.from({list(longer.learning_rate)});")
    found = page.simulated(0, "[...batches, ...batches]")
    np.testing.assert_allclose(found, longer.simulate().numpy(), rtol=1e-4, atol=1e-5)


def test_each_visit_left_out(view: View, scripts: Callable) -> None:
    run = view.simulators[0].simulator.what_if(view.runs.take([1]))
    code = """(() => {
      const run = view.runs[1], model = view.model(0), alone = dropVisit(run.batches, 6, 0);
      const schedule = scheduleOf(model, view.rates[run.rates], alone);
      const factors = batchFactors(model, batchMeans(model, alone), alone.length, 3);
      return alone.map((_, at) => finalsWithout(model, schedule, alone, factors, at + 1, 3, view.initial(1, 3)));
    })()"""
    found = scripts(view).value(code)
    base = run.drop([3], [6])
    for step, batch in enumerate(base.curriculum, start=1):
        wanted = [float(base.drop([key], [step]).simulate()[3, -1]) for key in batch]
        np.testing.assert_allclose(found[step - 1], wanted, rtol=1e-4, atol=1e-5)


def test_the_band_and_the_measured_values(view: View, scripts: Callable) -> None:
    page, model = scripts(view), view.simulators[0].simulator
    runs = view.runs
    for run in range(2):
        measured = page.value(f"view.test.map((_, test) => view.measured({run}, test))")
        np.testing.assert_allclose(np.array(measured), runs.values[run], atol=np.ptp(runs.values) / 60000)
    if not model.config.calibration_runs:
        assert page.value("view.model(0).width === undefined")
        return
    wanted = model.what_if(runs.take([0])).simulate(interval=0.9)
    code = """view.test.map((_, test) => {
      const run = view.runs[0], model = view.model(0), schedule = scheduleOf(model, view.rates[run.rates], run.batches);
      const found = bandAround(model, simulate(model, schedule, run.batches, test, view.initial(0, test)), test);
      return [Array.from(found.low), Array.from(found.high)];
    })"""
    found = np.array(page.value(code))
    np.testing.assert_allclose(found[:, 0], wanted.low.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 1], wanted.high.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["memory", "markov_2", "of triples"])
def test_fitted_simulators(dataset: Path, trained: dict[str, str], name: str, scripts: Callable) -> None:
    simulated = Simulated(load_simulator(trained[name]))
    config = simulated.simulator.config
    runs = read_dynamics(dataset, config.dataset_config, config.metric).split("test")
    page = scripts(View(runs, (simulated,)))
    for code, changed in CHANGES.values():
        run = simulated.simulator.what_if(runs.take([0]))
        wanted = changed(run)
        np.testing.assert_allclose(page.simulated(0, code), wanted.simulate().numpy(), rtol=1e-4, atol=1e-5)


def test_changes_of_batches(scripts: Callable, make_dynamics: Callable[..., Dynamics]) -> None:
    page = scripts(View(make_dynamics(CURRICULA, np.ones((2, 2, 7)), POOL), ()))
    assert page.value("dropVisit([[1], [2, 3]], 1, 0)") == [[], [2, 3]]
    assert page.value("dropExample([[4, 1], [2, 2]], 2)") == [[4, 1], []]
    assert page.value("moveVisit([[1], [2]], 1, 0, 2)") == [[], [2, 1]]
    assert page.value("addExample([[], [2]], 1, 3)") == [[3], [2]]
    assert page.value("dropVisit([[1, 1], [2]], 1, 1)") == [[1], [2]]
    assert page.value("repeatVisit([[5, 6]], 1, 0)") == [[5, 5, 6]]
    assert page.value("moveVisit([[5, 6], [7]], 1, 1, 1)") == [[5, 6], [7]]


def test_an_example_that_is_alone_in_its_batch_has_an_effect(view: View, scripts: Callable) -> None:
    run = view.simulators[0].simulator.what_if(view.runs.take([0]))
    base = run.drop([run.curriculum[1][1]], [2])
    key, last = base.curriculum[1][0], -1
    code = """(() => {
      const run = view.runs[0], model = view.model(0), alone = dropVisit(run.batches, 2, 1);
      const schedule = scheduleOf(model, view.rates[run.rates], run.batches), first = view.initial(0, 3);
      return [
        [...visitEffects(model, schedule, alone, 3, first)][1],
        [...exampleEffects(model, schedule, alone, 3, first)].filter(([place]) => place === alone[1][0]),
      ];
    })()"""
    visit, example = scripts(view).value(code)
    final = float(base.simulate()[3, last])
    np.testing.assert_allclose(visit, [final - float(base.drop([key], [2]).simulate()[3, last])], atol=2e-5)
    np.testing.assert_allclose(example[0][1], final - float(base.drop([key]).simulate()[3, last]), rtol=1e-6, atol=2e-5)
