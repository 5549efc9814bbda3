"""Results are tensors that can be drawn, tabulated and read."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from simulator.attribution import leave_out, visit_derivatives
from simulator.evaluation import EvaluateSettings, evaluate
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.trajectories import Band, Trajectories
from simulator.model.what_if import WhatIf

CURRICULUM = [[0, 1], [2, 3], [4, 0], [5, 6], [1, 2], [3, 3]]


@pytest.fixture
def run(
    make_config: Callable[..., GPTfluenceConfig], make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator]
) -> WhatIf:
    model = make_model(make_config("memory", calibration_runs=19))
    for scale in (model.band_scale, model.band_scores):
        scale.abs_()
    return model.what_if(CURRICULUM)


def many(seed: int = 0) -> Trajectories:
    values = torch.rand(9, 5, generator=torch.Generator().manual_seed(seed))
    return Trajectories.of(values, range(10, 19), "loss")


def test_they_are_tensors_like_any_other() -> None:
    found = many()
    plain = found.as_subclass(torch.Tensor)
    assert isinstance(found, torch.Tensor) and type(plain) is torch.Tensor
    for computed in (found + 1, found[0], found[:, -1], found.T, found.clone(), found.unbind()[0], found.mean()):
        assert type(computed) is torch.Tensor
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(2 - found, 2 - plain)
    torch.testing.assert_close(torch.stack([found, found]), torch.stack([plain, plain]))
    np.testing.assert_array_equal(np.asarray(found), plain.numpy())
    assert found.tolist() == plain.tolist()


def test_a_difference_of_runs_is_drawn_like_a_run() -> None:
    change = many(0) - many(1)
    assert isinstance(change, Trajectories) and change.quantity == "change of loss"
    assert (change - change).quantity == "change of loss"
    others = Trajectories.of(torch.rand(9, 5), range(9), "loss")
    assert type(many() - others) is torch.Tensor
    assert type(many() - 1.0) is torch.Tensor


def test_copies_keep_their_names(tmp_path: Path) -> None:
    for made in (copy.deepcopy(many()), pickle.loads(pickle.dumps(many()))):
        assert (type(made), made.test_ids, made.quantity) == (Trajectories, tuple(range(10, 19)), "loss")
        assert torch.equal(made, many())


def test_a_wrong_number_of_test_examples() -> None:
    with pytest.raises(ValueError, match="not trajectories of 3 examples"):
        Trajectories.of(torch.rand(2, 5), range(3), "loss")
    with pytest.raises(ValueError, match="test example 3 is not among"):
        many().plot([3])


def test_a_run_as_table_figure_and_text(run: WhatIf) -> None:
    found = run.simulate()
    table = found.to_pandas()
    assert list(table.columns) == ["test_id", "step", "loss"]
    again = table.pivot(index="test_id", columns="step", values="loss")
    np.testing.assert_array_equal(again.loc[list(found.test_ids)].to_numpy(), found.numpy())
    figure = found.plot()
    assert [line.name for line in figure.data] == [f"test example {key}" for key in found.test_ids]
    np.testing.assert_allclose(figure.data[1].y, found[1].numpy())
    assert figure.layout.yaxis.title.text == "loss (nats per token)"
    lines = repr(found).splitlines()
    assert lines[0] == "loss (nats per token) of mini_sentiment_nano: 4 test examples, steps 0 to 6"
    assert lines[2].split() == ["test", "example", "0", *(f"{found[0, at]:.4g}" for at in (0, 2, 3, 4, 6))]
    assert lines[-1].startswith("mean of 4")
    html = found._repr_html_()
    assert all(escape(line.split()[-1]) in html for line in lines) and html.count("<tr>") == len(lines) - 1
    assert repr(run).startswith("run of mini_sentiment_nano for loss: 6 steps, 7 of 7 training examples, 4 test")
    assert "batches of 1" in repr(run.drop([0]))


def test_what_a_notebook_shows_is_never_markup() -> None:
    named = Trajectories.of(torch.ones(2, 3), [0, 1], "<b>bold</b>", "<i>", "<script>_nano")
    for shown in (named._repr_html_(), (named - named)._repr_html_()):
        assert "&lt;b&gt;bold&lt;/b&gt; (&lt;i&gt;) of &lt;script&gt;_nano" in shown
        assert set(re.findall(r"</?(\w+)", shown)) <= {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}


def test_of_many_test_examples_a_spread_is_drawn() -> None:
    found = many()
    shown = [int(line.name.split()[-1]) for line in found.plot().data]
    change = (found[:, -1] - found[:, 0]).tolist()
    assert len(shown) == 6
    order = [change[key - 10] for key in shown]
    assert order == sorted(order) and order[0] == min(change) and order[-1] == max(change)
    assert [line.name for line in found.plot([12]).data] == ["test example 12"]


def test_a_band_as_table_figure_and_text(run: WhatIf) -> None:
    found = run.simulate(interval=0.9)
    assert isinstance(found, Band)
    table = found.to_pandas()
    assert list(table.columns) == ["test_id", "step", "loss", "low", "high"]
    np.testing.assert_array_equal(table["high"].to_numpy(), found.high.flatten().numpy())
    outline, line = found.plot([2]).data
    place = found.prediction.test_ids.index(2)
    np.testing.assert_allclose(line.y, found.prediction[place].numpy())
    np.testing.assert_allclose(outline.y[:7], found.high[place].numpy())
    np.testing.assert_allclose(outline.y[:6:-1], found.low[place].numpy())
    note = repr(found).splitlines()[-1]
    assert note.startswith("90% interval, at the last step ") and f"<p>{note}</p>" in found._repr_html_()


def test_what_was_measured_stands_beside_what_is_predicted(
    make_config: Callable[..., GPTfluenceConfig],
    make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator],
    make_dynamics: Callable[..., Dynamics],
) -> None:
    model = make_model(make_config("memory", calibration_runs=19))
    model.band_scores.abs_()
    fact = make_dynamics([CURRICULUM], np.random.default_rng(0).random((1, 4, 3)), 7, step=[0, 3, 6])
    run = model.what_if(fact)
    found = run.simulate()
    for result in (found, copy.deepcopy(found), pickle.loads(pickle.dumps(found)), run.simulate(0.9).prediction):
        assert "mean of 4, measured" in repr(result)
    line = repr(found).splitlines()[-1].split()[-5:]
    assert line == [f"{fact.values[0, :, 0].mean():.4g}", "-", f"{fact.values[0, :, 1].mean():.4g}", "-",
                    f"{fact.values[0, :, 2].mean():.4g}"]  # fmt: skip
    for figure in (found.plot([1, 2]), run.simulate(0.9).plot([1, 2])):
        dots = {each.name: each for each in figure.data if each.mode == "markers"}
        assert list(dots) == ["test example 1, measured", "test example 2, measured"]
        np.testing.assert_allclose(dots["test example 2, measured"].y, fact.values[0, 2])
        assert list(dots["test example 2, measured"].x) == [0, 3, 6]
    # A changed run was not made, nor is a difference measured.
    for other in (run.drop([0]).simulate(), run.schedule([1e-3] * 6).simulate(), found - run.drop([0]).simulate()):
        assert other.measured is None and "measured" not in repr(other)


def test_influence_as_table_figure_and_text(run: WhatIf) -> None:
    given, gone = visit_derivatives(run), leave_out(run, [0, 2, 4])
    table = given.to_pandas()
    assert list(table.columns) == ["step", "pool_id", "test_id", "final", "whole"]
    row = table[(table.step == 3) & (table.pool_id == 0) & (table.test_id == 2)]
    assert row.final.item() == given.final[5, 2] and row.whole.item() == given.whole[5, 2]
    np.testing.assert_allclose(given.plot(2).data[0].y, given.final[:, 2].numpy())
    np.testing.assert_allclose(given.plot().data[0].y, given.final.mean(1).numpy())
    assert "training example" in repr(given) and len(repr(given).splitlines()) == 8
    for result in (given, gone):
        title, *_, last = repr(result).splitlines()
        assert "loss (nats per token) of mini_sentiment_nano" in title and "4 test examples" in title
        assert title in result._repr_html_() and last.split()[-1] in result._repr_html_()
    table = gone.to_pandas()
    assert table[(table.pool_id == 4) & (table.test_id == 1)].final.item() == gone.final[2, 1]
    bars = gone.plot(1).data[0]
    found = dict(zip(bars.y, bars.x, strict=True))
    assert found == {f"training example {key}": gone.final[at, 1] for at, key in enumerate([0, 2, 4])}
    assert list(bars.x) == sorted(bars.x)
    assert len(repr(gone).splitlines()) == 5
    with pytest.raises(ValueError, match="test example 99"):
        gone.plot(99)


def test_an_evaluation_as_table_figure_and_text(dataset: Path, trained: dict[str, str]) -> None:
    settings = EvaluateSettings(
        str(dataset), "mini_sentiment_nano", models=(trained["memory"],), baselines=("persistence", "mean_curve")
    )
    found = evaluate(settings)
    table = found.to_pandas()
    assert table.method.tolist() == [row.method for row in found.rows]
    lines = {line.name: line for line in found.plot(errors=True).data}
    assert set(lines) == set(found.predictions)
    error = np.abs(found.predictions["mean_curve"] - found.runs.values).mean((0, 1))
    np.testing.assert_allclose(lines["mean_curve"].y, error)
    run, test_id = found.runs.runs[0], found.runs.test[1].id
    lines = {line.name: line for line in found.plot(run, test_id).data}
    np.testing.assert_allclose(lines["truth"].y, found.runs.values[0, 1])
    assert "mean_curve" in repr(found) and "array(" not in repr(found)
    lines = {line.name: line for line in found.plot().data}
    assert set(lines) == {"truth", *found.predictions}
    for name, values in (("truth", found.runs.values), *found.predictions.items()):
        np.testing.assert_allclose(lines[name].y, values[0].mean(0), rtol=1e-5)
    with pytest.raises(SettingsError, match="errors are over all runs"):
        found.plot(run, errors=True)
    with pytest.raises(SettingsError, match="no held-out run 'x'"):
        found.plot("x", test_id)


@pytest.mark.parametrize(("lacking", "call"), [("plotly", "plot"), ("pandas", "to_pandas")])
def test_without_plotly_or_pandas_the_message_says_what_to_install(
    lacking: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {lacking, *(name for name in sys.modules if name.startswith(f"{lacking}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    found = Trajectories.of(torch.ones(1, 2), [0], "loss")
    assert repr(found).startswith("loss: 1 test examples")
    with pytest.raises(ImportError, match=f"pip install {lacking}"):
        getattr(found, call)()
