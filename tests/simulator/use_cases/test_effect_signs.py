"""An effect has one sign: the metric with an example minus without it, wherever it can be read."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.gradient_reading import read_products
from simulator.attribution import leave_out, visit_derivatives
from simulator.cli import main
from simulator.evaluation.simulated import load_simulator, simulated_of
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.what_if import WhatIf, simulate_many
from simulator.reporting.explorer.payload import View
from simulator.training import TrainSettings, train_simulator
from simulator.use_cases.case import load_case
from simulator.use_cases.influence import InfluenceSettings, find_influence
from simulator.use_cases.influence_report import influence_tables
from simulator.use_cases.select_bound import mixture_bound
from simulator.use_cases.validate import tracin
from tests.simulator.conftest import set_quick_markov
from tests.simulator.reporting.explorer.conftest import Scripts
from tests.simulator.use_cases.conftest import CONFIG

KINDS = {
    "memory": TrainSettings("", CONFIG, encoder="label"),
    "memory of accuracy": TrainSettings("", CONFIG, "accuracy", encoder="label"),
    "markov": TrainSettings("", CONFIG, dynamics="markov", encoder="label", preset="tuned", bands=False),
    "simfluence": TrainSettings("", CONFIG, dynamics="markov", encoder="index"),
}


@dataclass(frozen=True)
class Effects:
    """A simulator, one run, and the effects in it by simulating it twice: `[n, M]` of n examples."""

    source: str
    dataset: str
    model: GPTfluenceSimulator
    run: Dynamics
    pool_ids: list[int]
    expected: np.ndarray

    @property
    def metric(self) -> str:
        return self.run.metric

    @property
    def what_if(self) -> WhatIf:
        return self.model.what_if(self.run)


def simulated_end(model: GPTfluenceSimulator, run: Dynamics, gone: int | None) -> np.ndarray:
    """The last values of a run whose batches are written out without an example; no edit of `what_if` is used."""
    curriculum = [[key for key in batch if key != gone] for batch in run.curricula[0]]
    rates = run.learning_rate[0].tolist()
    found = model.simulate(curriculum, run.pool, run.test, run.values[0, :, :1], rates)
    return found[:, -1].numpy()


@pytest.fixture(scope="module", params=list(KINDS))
def effects(request: pytest.FixtureRequest, collected: str, tmp_path_factory: pytest.TempPathFactory) -> Effects:
    settings = TrainSettings(**(vars(KINDS[request.param]) | {"dataset": collected}))
    folder = tmp_path_factory.mktemp("effects") / "model"
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_quick_markov(monkeypatch)
        train_simulator(settings).save(folder, settings)
    case = load_case(str(folder), collected, None, None)
    run = case.run()
    pool_ids = sorted({key for batch in run.curricula[0] for key in batch})
    before = simulated_end(case.model, run, None)
    expected = np.array([before - simulated_end(case.model, run, key) for key in pool_ids])
    assert np.abs(expected).max() > 1e-5
    return Effects(str(folder), collected, case.model, run, pool_ids, expected)


def test_leaving_out_in_python(effects: Effects) -> None:
    found = leave_out(effects.what_if)
    assert list(found.pool_ids) == effects.pool_ids
    np.testing.assert_allclose(found.final, effects.expected, atol=1e-5)
    table = found.to_pandas()
    np.testing.assert_allclose(table.final.to_numpy().reshape(effects.expected.shape), effects.expected, atol=1e-5)
    lowest = effects.pool_ids[int(effects.expected.mean(1).argmin())]
    if effects.expected.mean(1).min() < -1e-4:
        assert repr(found).splitlines()[2].startswith(f"training example {lowest} ")
        assert found.plot().data[0].y[0] == f"training example {lowest}"


def test_many_changed_runs_at_once(effects: Effects) -> None:
    run = effects.what_if
    ends = simulate_many([run, *(run.drop([key]) for key in effects.pool_ids)], final=True)
    np.testing.assert_allclose(ends[:1] - ends[1:], effects.expected, atol=1e-5)


def test_the_use_case_and_its_table(effects: Effects) -> None:
    found = find_influence(InfluenceSettings(effects.dataset, effects.source, test_ids=(0, 3), top=3))
    assert [example.id for example in found.pool] == effects.pool_ids
    np.testing.assert_allclose(found.final, effects.expected, atol=1e-5)
    columns = {None: effects.expected.mean(1), 0: effects.expected[:, 0], 3: effects.expected[:, 3]}
    columns = {test_id: each for test_id, each in columns.items() if found.helped(test_id) or found.harmed(test_id)}
    for test_id, table in zip(columns, influence_tables(found), strict=True):
        cells = [[str(cell) for cell in column.cells] for column in table.columns[:2]]
        for name, number in zip(*cells, strict=True):
            word, key = name.split(": ")
            expected = columns[test_id][effects.pool_ids.index(int(key))]
            assert float(number) == pytest.approx(expected, rel=0.01, abs=1e-5)
            helps = expected < 0 if effects.metric == "loss" else expected > 0
            said = ("helped", "ranked helpful", "unclear") if helps else ("harmed", "ranked harmful", "unclear")
            assert word in said


def test_the_command_its_json_and_its_page(
    effects: Effects, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    record, page = tmp_path / "effects.json", tmp_path / "effects.html"
    words = ["influence", effects.source, "--dataset", effects.dataset, "--json", str(record), "--output", str(page)]
    monkeypatch.setattr(sys, "argv", ["gptfluence", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert "at the last step with it minus without it" in " ".join(capsys.readouterr().out.split())
    content = json.loads(record.read_text())
    for test, row in enumerate([*content["test_examples"].values(), content["mean"]]):
        expected = effects.expected[:, test] if test < effects.expected.shape[1] else effects.expected.mean(1)
        by_id = {each["pool_id"]: each["final"] for each in row}
        np.testing.assert_allclose([by_id[key] for key in effects.pool_ids], expected, atol=1e-5)
    strongest = int(np.abs(effects.expected.mean(1)).argmax())
    shown = re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))
    assert f"{effects.expected.mean(1)[strongest]:+.3g}" in shown


def test_derivatives_with_respect_to_a_visit(effects: Effects) -> None:
    found = visit_derivatives(effects.what_if)
    run, size = effects.what_if, 1e-2
    strongest = found.final.abs().sum(1).argmax().item()
    weights = [list(batch) for batch in run.weights]
    step, key = found.steps[strongest] - 1, found.pool_ids[strongest]
    weights[step][run.curriculum[step].index(key)] -= size
    less = WhatIf(run.situation, run.curriculum, tuple(map(tuple, weights)), run.learning_rate)
    expected = ((run.simulate() - less.simulate())[:, -1] / size).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.final[strongest], expected, rtol=0.1, atol=0.05 * scale)


def test_the_explorer(effects: Effects) -> None:
    simulated = simulated_of(load_simulator(effects.source), effects.source, effects.run)
    page = Scripts(View(effects.run, (simulated,)))
    places = {example.id: at for at, example in enumerate(effects.run.pool)}
    code = """(() => {
      const run = view.runs[0], model = view.model(0), schedule = scheduleOf(model, view.rates[run.rates], run.batches);
      return [...%s(model, schedule, run.batches, 3, view.initial(0, 3))];
    })()"""
    found = dict(page.value(code % "exampleEffects"))
    by_place = [found[places[key]] for key in effects.pool_ids]
    np.testing.assert_allclose(by_place, effects.expected[:, 3], rtol=1e-3, atol=2e-5)
    visits = page.value(code % "visitEffects")
    before = float(effects.what_if.simulate()[3, -1])
    for step, (batch, values) in enumerate(zip(effects.run.curricula[0], visits, strict=True), start=1):
        wanted = [before - float(effects.what_if.drop([key], [step]).simulate()[3, -1]) for key in batch]
        np.testing.assert_allclose(values, wanted, rtol=1e-3, atol=2e-5)


def test_tracin_of_a_run_without_an_example(effects: Effects) -> None:
    key = effects.pool_ids[0]
    run = effects.what_if
    found = tracin(effects.run, [0, 3], [run, run.drop([key])], np.array([0, len(run.curriculum)]))
    if effects.metric != "loss":
        assert found is None
        return
    assert found is not None
    products = read_products(effects.dataset, effects.run.config, effects.run.runs[0])
    effect = np.zeros(2)
    for done, (batch, rate) in enumerate(zip(run.curriculum, run.learning_rate, strict=True)):
        last = max(place for place, taken in enumerate(products.step) if taken <= done)
        rows = {each: products.values[last][products.pool_ids.index(each)][[0, 3]] for each in batch}
        whole = np.mean(list(rows.values()), axis=0)
        others = np.mean([row for each, row in rows.items() if each != key], axis=0)
        # A step along a like gradient lowers the loss: with the example minus without it.
        effect += -rate * whole + rate * others
    np.testing.assert_allclose(found[0, :, -1] - found[1, :, -1], effect, rtol=1e-2, atol=1e-5)


def test_select_prefers_what_lowers_a_loss_and_raises_an_accuracy(effects: Effects) -> None:
    case = load_case(effects.source, effects.dataset)
    bound = mixture_bound(case, effects.run, [0, 3])
    weights = torch.rand(4, len(effects.run.pool), generator=torch.Generator().manual_seed(0))
    simulated = bound.simulated(weights)
    assert torch.equal(bound.expected(weights), simulated if effects.metric == "loss" else -simulated)
