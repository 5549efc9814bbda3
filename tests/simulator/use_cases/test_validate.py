"""Counterfactual runs, simulated and really trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.gradient_reading import read_products
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.runs import Run
from simulator.attribution.counterfactuals import KINDS
from simulator.reporting.result_files import Finished, write_result_page
from simulator.use_cases.case import load_case
from simulator.use_cases.trial import KeptRuns, Trial
from simulator.use_cases.trials import train_all, trial_contents
from simulator.use_cases.validate import ValidateSettings, tracin, trainings_of, validate
from simulator.use_cases.validate_report import validation_result
from tests.accessibility import page_faults


@pytest.fixture
def settings(memory: str, collected: str, tmp_path: Path) -> ValidateSettings:
    return ValidateSettings(collected, memory, output=tmp_path, each=3, test_examples=4, measured=3, workers=1)


def test_trainings_use_the_gpus_that_there_are(settings: ValidateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert replace(settings, workers=None).devices == ["cuda:0", "cuda:1"]
    assert replace(settings, device="cpu").devices == ["cpu"]


def test_a_trial_of_a_recorded_run_is_that_run(collected: str, tmp_path: Path) -> None:
    fact = read_dynamics(collected, "mini_sentiment_own", "loss").take([4])
    contents = trial_contents(fact, fact.test, measured=9)
    trials = [Trial(fact.curricula[0], fact.runs[0]), Trial(fact.curricula[0][::-1], fact.runs[0])]
    worked = train_all(contents, trials, tmp_path, devices=["cpu"])
    assert worked.done == 2
    np.testing.assert_allclose(worked.results[0].metrics["loss"], fact.values[0], rtol=1e-5)
    assert not np.allclose(worked.results[1].metrics["loss"][:, -1], fact.values[0, :, -1])
    again = train_all(contents, trials[::-1], tmp_path, devices=["cpu"])
    assert again.done == 0 and again.each is None
    np.testing.assert_array_equal(again.results[1].metrics["loss"], worked.results[0].metrics["loss"])
    assert again.results[1].step == worked.results[0].step == list(range(9))


def test_kept_runs_belong_to_what_they_were_trained_on(collected: str, tmp_path: Path) -> None:
    fact = read_dynamics(collected, "mini_sentiment_own", "loss").take([4])
    contents = trial_contents(fact, fact.test, measured=9)
    trial = Trial([[1, 2]], "0004")
    kept = KeptRuns(tmp_path, contents, "abc")
    kept.save(trial, Run("0004", [[1, 2]], [1e-3], [0, 1], [], {"loss": np.ones((6, 2), dtype=np.float32)}))
    assert kept.load(trial) is not None
    others = [Trial([[2, 1]], "0004"), Trial([[1, 2]], "0005"), Trial([[1, 2]], "0004", {1: " bad"})]
    assert [kept.load(other) for other in others] == [None] * 3
    assert KeptRuns(tmp_path, replace(contents, test=contents.test[:2]), "abc").load(trial) is None
    assert KeptRuns(tmp_path, contents, "abd").load(trial) is None
    kept.path(trial).write_bytes(b"torn")
    assert kept.load(trial) is None


def test_validation_trains_what_it_simulates(settings: ValidateSettings, tmp_path: Path) -> None:
    runs, updates, tests, seconds = trainings_of(settings)
    assert (runs, updates, tests) == (12, 8, 4) and seconds > 0
    found = validate(settings)
    assert found.run == "0004" and found.kinds == [kind for kind in KINDS for _ in range(3)]
    assert found.step.tolist() == [0, 4, 8]
    assert found.truth.shape == (12, 4, 3)
    assert set(found.predicted) == {"memory_label", "mean_curve", "tracin_cp_10"}
    for predicted in found.predicted.values():
        assert predicted.shape == found.truth.shape and np.isfinite(predicted).all()
    result = validation_result(found)
    assert len(found.to_pandas()) == len(result.rows) and len(found.plot().data) > 0
    assert all(table.title in found._repr_html_() for table in result.tables) and result.notes[0] in repr(found)
    write_result_page(tmp_path / "page.html", Finished("validate", "Check", result, "c", 1.0))
    assert page_faults(tmp_path / "page.html") == []
    of = {(row["method"], row["over"]): row for row in result.rows if row.get("outcome") == "final"}
    assert of["mean_curve", "subsets"]["value"] is None
    assert of["memory_label", "subsets"]["runs"] == 9 and of["memory_label", "reorder"]["runs"] == 3
    ahead = next(row for row in result.rows if row.get("outcome") == "final_difference" and row["over"] == "subsets")
    assert ahead["method"] == "memory_label minus tracin_cp_10"
    ours, theirs = (of[method, "subsets"]["value"] for method in ("memory_label", "tracin_cp_10"))
    assert ahead["value"] == pytest.approx(ours - theirs)
    by_step = [(row["method"], row["step"]) for row in result.rows if row.get("outcome") == "step"]
    assert by_step == [(name, step) for name in ("memory_label", "tracin_cp_10") for step in (4, 8)]
    perfect = validation_result(replace(found, predicted=found.predicted | {"memory_label": found.truth}))
    scores = [row["value"] for row in perfect.rows if row.get("method") == "memory_label" and "over" in row]
    assert scores == pytest.approx([1.0] * len(scores))


def test_tracin_adds_up_recorded_products(settings: ValidateSettings, collected: str, memory: str) -> None:
    case = load_case(memory, collected)
    fact = case.run()
    run = case.model.what_if(fact)
    changed = run.drop([run.curriculum[0][0]])
    places, step = [1, 4], np.array([0, 5, 8])
    found = tracin(fact, places, [run, changed], step)
    assert found is not None
    products = read_products(collected, fact.config, fact.runs[0])
    for at, each in enumerate((run, changed)):
        value = fact.values[0, places, 0].astype(float)
        line = [value.copy()]
        for done, (batch, rate) in enumerate(zip(each.curriculum, each.learning_rate, strict=True)):
            last = max(place for place, taken in enumerate(products.step) if taken <= done)
            rows = [products.pool_ids.index(key) for key in batch]
            value = value - rate * products.values[last][rows][:, places].mean(0)
            line.append(value.copy())
        np.testing.assert_allclose(found[at], np.stack(line, axis=-1)[:, step], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused(
    settings: ValidateSettings, dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="test_examples=7, but mini_sentiment_own has 6"):
        validate(replace(settings, test_examples=7))
    with pytest.raises(SettingsError, match="has no run '0099'"):
        validate(replace(settings, run="0099"))
    with pytest.raises(SettingsError, match="no runs of config 'mini_sentiment_own'"):
        validate(replace(settings, dataset=str(dataset)))
    with pytest.raises(DataError, match="started from"):
        validate(replace(settings, model=trained["memory"], dataset=str(dataset)))
    with pytest.raises(SettingsError, match="share=1 must be"):
        replace(settings, share=1)
