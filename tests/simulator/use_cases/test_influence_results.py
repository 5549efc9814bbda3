"""Influence as users see it: signs, errors, texts that cannot become markup."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from gptdynamics.outputs import write_output_json
from simulator.attribution.effect_errors import informative
from simulator.model.configuration_gptfluence import scale_of
from simulator.training.leave_one_run_out import responses_without_runs
from simulator.use_cases.case import load_case
from simulator.use_cases.influence import InfluenceResult, InfluenceSettings, find_influence
from simulator.use_cases.influence_report import (
    example_text,
    influence_record,
    influence_tables,
    visible,
    write_influence_page,
)
from tests.accessibility import page_faults

NASTY = "<script>alert(1)</script> & \x1b[31m \u202eevil \ud800 שלום 👩\u200d🚀\x00"


@pytest.fixture
def found(memory: str, collected: str) -> InfluenceResult:
    return find_influence(InfluenceSettings(collected, memory, test_ids=(0, 3), top=2))


def test_an_effect_is_with_minus_without(found: InfluenceResult, memory: str, collected: str) -> None:
    case = load_case(memory, collected)
    fact = case.run()
    run = case.model.what_if(fact)
    before = run.simulate()
    for each in found.effects(3):
        change = before[3] - run.drop([each.pool_id]).simulate()[3]
        assert each.final == pytest.approx(float(change[-1]), abs=1e-6)
        assert each.whole == pytest.approx(float(change[1:].mean()), abs=1e-6)
        assert each.steps == tuple(step for step, batch in enumerate(fact.curricula[0], 1) if each.pool_id in batch)
        assert len(each.visits) == len(each.steps)
    mean = {each.pool_id: each.final for each in found.effects()}
    np.testing.assert_allclose([mean[example.id] for example in found.pool], found.final.mean(1), rtol=1e-5)


def test_it_shows_itself_as_table_figure_and_text(found: InfluenceResult) -> None:
    table = found.to_pandas()
    row = table[(table.pool_id == found.pool[1].id) & (table.test_id == found.test[3].id)]
    assert row.final.item() == found.final[1, 3] and row.error.item() == pytest.approx(found.error[1, 3])
    bars = dict(zip(found.plot().data[0].y, found.plot().data[0].x, strict=True))
    best, worst = found.helped()[0], found.harmed()[0]
    assert bars[f"training example {best.pool_id}"] == pytest.approx(best.final, rel=1e-5)
    title, _, first, *_, last, verdict = repr(found).splitlines()
    assert f"loss (nats per token) of {found.config}, run 0004" in title and f"{len(found.test)} test examples" in title
    assert first.split() == (
        f"{found.word(best)}: training example {best.pool_id} {best.final:.4g} {best.error:.4g}".split()
    )
    assert last == "the metric with the example minus without it; negative: it helped"
    assert verdict == found.verdict()
    assert (
        f"<th>{found.word(worst)}: training example {worst.pool_id}</th><td>{worst.final:.4g}</td>"
        in found._repr_html_()
    )
    without = replace(found, error=None, mean_error=None)
    assert without.to_pandas().error.isna().all() and repr(without).splitlines()[2].split()[-1] == "-"


def test_what_lowers_a_loss_helps_and_what_lowers_an_accuracy_harms(found: InfluenceResult) -> None:
    assert all(each.final < 0 for each in found.helped()) and found.helped()
    assert all(each.final > 0 for each in found.harmed()) and found.harmed()
    other = replace(found, metric="accuracy", higher_is_better=True)
    assert [each.final for each in other.helped()] == [each.final for each in found.harmed()]
    still = replace(found, final=np.zeros_like(found.final))
    assert still.helped() == still.harmed() == []


def test_noise_is_never_called_help(found: InfluenceResult) -> None:
    size = np.abs(found.final)
    sure = replace(found, error=size / 3, mean_error=np.abs(found.final.mean(1)) / 3)
    assert {sure.word(each) for each in sure.helped()} == {"helped"}
    assert {sure.word(each) for each in sure.harmed(3)} == {"harmed"}
    assert f"{len(found.pool)} of {len(found.pool)} effects are larger than two standard errors" in sure.verdict()
    assert "do not rely" in replace(sure, removed=0.01).verdict() and "do not rely" not in sure.verdict(0)
    noise = replace(found, error=size, mean_error=np.abs(found.final.mean(1)))
    assert {noise.word(each) for each in (*noise.helped(3), *noise.harmed(3))} == {"unclear"}
    assert noise.verdict().endswith("so nothing can be said about single training examples.")
    ranked = replace(found, error=None, mean_error=None, few_runs=True)
    assert ranked.word(ranked.helped()[0]) == "ranked helpful" and "a ranking only" in ranked.verdict()
    still = replace(found, final=np.zeros_like(found.final))
    assert influence_tables(still) == [] and "every effect is zero" in still.verdict()


def test_measured_values_stand_beside_predicted(found: InfluenceResult, memory: str, collected: str) -> None:
    fact = load_case(memory, collected).run()
    assert found.measured is not None
    np.testing.assert_array_equal(found.measured, fact.values[0, :, -1])
    said = str(influence_tables(found)[0].caption)
    assert f"{found.predicted.mean():.3g} simulated, {fact.values[0, :, -1].mean():.3g} measured" in said


def test_errors_are_those_of_fits_without_each_run(found: InfluenceResult) -> None:
    assert found.error is not None and found.mean_error is not None
    assert found.error.shape == found.final.shape and (found.error >= 0).all() and found.error.max() > 0
    assert {each.error for each in found.effects()} == set(found.mean_error.tolist())


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 1.0])
def test_few_directions_say_what_all_say(ridge: float) -> None:
    rng = np.random.default_rng(1)
    # Six filters of nearly dependent states, as of sums with like decays.
    few = rng.normal(size=(5, 30, 2))
    states = np.concatenate([few + scale * rng.normal(size=few.shape) for scale in (0, 1e-1, 1e-9, 1e-10, 1e-11, 0)], 2)
    values = (few @ rng.normal(size=(2, 3)) + 0.1 * rng.normal(size=(5, 30, 3))).swapaxes(1, 2)
    turn = informative(states, ridge)
    assert turn.shape == (12, 4)
    np.testing.assert_allclose(turn.T @ turn, np.eye(4), atol=1e-12)
    moved = states[0, :3] - states[1, :3]
    every = moved @ responses_without_runs(states, values, np.eye(3), ridge, scale_of("accuracy"))
    fewer = (
        moved @ turn @ responses_without_runs(states @ turn, values, np.eye(3), ridge * 4 / 12, scale_of("accuracy"))
    )
    np.testing.assert_allclose(fewer, every, rtol=1e-3, atol=1e-6)
    assert informative(np.zeros((3, 4, 5)), ridge).shape == (5, 1)


def test_responses_without_runs_are_ridge_regressions_on_the_others() -> None:
    rng = np.random.default_rng(0)
    states, values = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 2, 5))
    found = responses_without_runs(states, values, np.eye(2), 0.1, scale_of("accuracy"))
    for run in range(4):
        kept = [other for other in range(4) if other != run]
        x = (states[kept] - states[kept].mean(0)).reshape(-1, 3)
        y = (values[kept] - values[kept].mean(0)).swapaxes(1, 2).reshape(-1, 2)
        penalty = 0.1 * np.trace(x.T @ x) / 3
        np.testing.assert_allclose(found[run], np.linalg.solve(x.T @ x + penalty * np.eye(3), x.T @ y), rtol=1e-8)


def test_markov_has_no_errors(dataset: Path, trained: dict[str, str]) -> None:
    found = find_influence(InfluenceSettings(str(dataset), trained["markov"]))
    assert found.error is None and found.effects()[0].error is None
    assert len(influence_tables(found)) == 1


def test_texts_never_become_markup(found: InfluenceResult, tmp_path: Path) -> None:
    nasty = tuple(replace(example, prompt=NASTY) for example in found.pool)
    found = replace(found, pool=nasty, test=tuple(replace(example, prompt=NASTY) for example in found.test))
    write_influence_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; ␛[31m" in page
    assert "\u202e" not in page and "\\u202eevil" in page and "\\ud800" in page
    assert "שלום" in page and "👩\u200d🚀" in page and "\x00" not in page and "\x1b" not in page
    assert "http" not in page.replace("http-equiv", "")
    write_output_json(tmp_path / "found.json", influence_record(found))
    record = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert set(record["test_examples"]) == {"0", "3"}
    assert len(record["mean"]) == len(found.pool)


def test_the_page_can_be_read_aloud(found: InfluenceResult, tmp_path: Path) -> None:
    write_influence_page(found, tmp_path / "page.html")
    assert page_faults(tmp_path / "page.html") == []


def test_texts_left_out_are_named_by_their_source() -> None:
    withheld = Example(7, "", "", task="sst2", source={"dataset": "sst2", "split": "train", "row": "12"})
    assert example_text(withheld) == "(text left out: sst2 train row 12)"
    assert visible("a\nb\tc") == "a\nb\tc"


def test_unknown_ids_are_refused(memory: str, collected: str) -> None:
    with pytest.raises(SettingsError, match="no test example 42"):
        find_influence(InfluenceSettings(collected, memory, test_ids=(42,)))
    with pytest.raises(SettingsError, match="top=0"):
        InfluenceSettings(collected, memory, top=0)


def test_an_example_alone_in_its_batch_leaves_a_run_without_that_update(
    memory: str, collected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = load_case(memory, collected)
    alone = [[key] for key in range(8)]
    monkeypatch.setattr(
        "simulator.use_cases.influence.load_case",
        lambda *_: replace(case, runs=replace(case.runs, curricula=[alone] * 6)),
    )
    found = find_influence(InfluenceSettings(collected, memory))
    run = case.model.what_if(replace(case.run(None), curricula=[alone]))
    difference = run.simulate() - run.drop([3]).simulate()
    assert found.pool[3].id == 3
    np.testing.assert_allclose(found.final[3], difference[:, -1], rtol=1e-4, atol=1e-6)
    assert np.abs(found.final[3]).max() > 0
