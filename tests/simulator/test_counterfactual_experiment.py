"""Methods scored on runs that were really made again with rows left out, on the tiny base model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.gradient_reading import read_products
from gptdynamics.plans import Plan, PlanEntry
from simulator import report
from simulator.attribution.counterfactuals import SUBSETS
from simulator.attribution.lds import lds, lds_difference
from simulator.baselines import MeanCurve, NotApplicableError
from simulator.evaluation.scoring import score_prediction
from simulator.evaluation.simulated import Simulated, load_simulator
from simulator.experiments import Workbench, run_experiment
from simulator.experiments.number_of_runs import DRAWS, draws
from simulator.experiments.retraining_methods import (
    RetrainedTestRuns,
    by_exact_first_order,
    by_kernels,
    by_target,
)
from simulator.reporting.numbers import interval_text, number_text
from simulator.settings.use_cases import ValidateSettings
from simulator.training import TrainSettings, train_simulator
from simulator.use_cases.validate import trainings_of, validate

CONFIG, OTHER = "mini_sentiment_again", "mini_sentiment_other"
UPDATES, MEASURED = 8, [0, 4, 8]
pytestmark = pytest.mark.usefixtures("quick_markov")


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> str:
    """Eleven runs of 8 updates, two of them test runs; these and a validation run made again. Another config has only
    the latter."""
    root = tmp_path_factory.mktemp("repeated")
    entries = []
    for config, runs, again in ((CONFIG, 11, {"0004": 6, "0010": 5, "0003": 2}), (OTHER, 6, {"0003": 1})):
        settings = RunSettings(
            config,
            learning_rate=1e-3,
            pool_size=20,
            subset=12,
            batch_size=3,
            epochs=2 if config == CONFIG else 1,
            test_examples=6,
            counterfactual_every=4,
            base_model=str(tiny_model_folder),
            gradients="test" if config == CONFIG else "none",
        )
        entries.append(PlanEntry(settings, runs, counterfactuals=again, kernels=int(config == CONFIG)))
    collect(CollectSettings(Plan("again", tuple(entries)), root, workers=1, device="cpu"))
    return str(root)


@pytest.fixture(scope="module")
def retrainings(repeated: str) -> RetrainedTestRuns:
    seen = read_dynamics(repeated, CONFIG).split("train", "validation")
    return RetrainedTestRuns.of(read_dynamics(repeated, CONFIG, counterfactual=True), seen)


def test_only_retrainings_of_test_runs_count(repeated: str, retrainings: RetrainedTestRuns) -> None:
    assert retrainings.repeated == ["0004"] * 6 + ["0010"] * 5
    assert retrainings.runs.runs == [f"c0004-{at:04d}" for at in range(6)] + [f"c0010-{at:04d}" for at in range(5)]
    assert retrainings.facts.runs == ["0004", "0010"]
    assert retrainings.runs.step.tolist() == MEASURED
    assert retrainings.places("0010").tolist() == [6, 7, 8, 9, 10]
    runs = read_dynamics(repeated, OTHER, counterfactual=True)
    with pytest.raises(NotApplicableError, match=f"{OTHER} has no test run that was made again"):
        RetrainedTestRuns.of(runs, runs.split("train"))
    lost = retrainings.runs.take([0, 7])
    with pytest.raises(NotApplicableError, match="run 0004, which others repeat, is missing"):
        RetrainedTestRuns.of(lost, retrainings.seen)


@pytest.mark.parametrize("summed", [False, True])
def test_kernels_of_the_repeated_run_add_up(retrainings: RetrainedTestRuns, summed: bool) -> None:
    found, runs = by_kernels(retrainings, summed), retrainings.runs
    for place, (base, curriculum) in enumerate(zip(retrainings.repeated, runs.curricula, strict=True)):
        products = read_products(runs.source, runs.config, base)
        value = runs.values[place, :, 0].astype(float)
        line = [value]
        for done, batch in enumerate(curriculum):
            last = max(at for at, taken in enumerate(products.step) if taken <= done)
            kernel = products.values.mean(0) if summed else products.values[last]
            rows = [products.pool_ids.index(key) for key in batch]
            value = value - runs.learning_rate[place, done] * kernel[rows].mean(0) if batch else value
            line.append(value)
        np.testing.assert_allclose(found[place], np.stack(line, axis=-1)[:, MEASURED], rtol=1e-4, atol=1e-5)


def test_exact_effects_rank_real_retrainings(retrainings: RetrainedTestRuns) -> None:
    # Of one run: the experiment below has those of both.
    runs = retrainings.runs.take(retrainings.places("0004").tolist())
    of_one = replace(retrainings, runs=runs, repeated=["0004"] * 6, facts=retrainings.facts.take([0]))
    predicted, truth = by_exact_first_order(of_one), runs.values
    np.testing.assert_allclose(predicted[..., 0], truth[..., 0], rtol=1e-4)
    score = lds(predicted[..., -1], truth[..., -1])
    assert score.value is not None and score.value > 0.7


def test_the_target_in_place_of_the_kernel_needs_labels(dataset: Path, retrainings: RetrainedTestRuns) -> None:
    predicted = by_target(retrainings)
    assert predicted.shape == retrainings.runs.values.shape and np.isfinite(predicted).all()
    # RetrainedTestRuns are told apart by the targets of the rows they lack, and by nothing else.
    targets = {example.id: example.target for example in retrainings.runs.pool}
    kinds = [
        str([sorted(targets[key] for key in batch) for batch in curriculum])
        for curriculum in retrainings.runs.curricula
    ]
    for one in range(6):
        for other in range(one):
            same = np.allclose(predicted[one], predicted[other], atol=1e-6)
            assert same == (kinds[one] == kinds[other])
    runs = read_dynamics(dataset, "mini_triples_nano")
    with pytest.raises(NotApplicableError, match="are no labels"):
        by_target(RetrainedTestRuns(runs, [], runs, runs))


def test_every_method_that_can_answer_is_scored(repeated: str, retrainings: RetrainedTestRuns, tmp_path: Path) -> None:
    result = run_experiment("counterfactuals", Workbench(repeated, exact=True), tmp_path).result
    [table], [figure] = result.tables, result.figures
    by_method = {line[0]: line for line in table.rows}
    assert {"memory_label", "tangent", "tangent_targets", "kernel_tracin", "exact_first_order"} <= by_method.keys()
    assert [name for name, line in by_method.items() if line[1] == "yes"] == [
        "kernel_tracin",
        "kernel_sum",
        "exact_first_order",
    ]
    assert table.columns[2:] == [
        "run 0004 (6)", "tangent minus it", "run 0010 (5)", "tangent minus it", "all (11)", "tangent minus it",
    ]  # fmt: skip
    assert [reason.split(" ")[0] for reason in result.skipped] == [OTHER]
    rows = {(row["run"], row["method"], row["step"], row["less"]): row for row in result.rows}
    predicted = by_kernels(retrainings, summed=False)
    for run, places in (("0004", slice(6)), ("0010", slice(6, 11))):
        for at in (1, 2):
            score = lds(predicted[places, :, at], retrainings.runs.values[places, :, at])
            assert vars(score).items() <= rows[run, "kernel_tracin", MEASURED[at], None].items()
    assert rows["all", "exact_first_order", UPDATES, None]["value"] > 0.7
    other = by_target(retrainings)
    ahead = lds_difference(other[..., -1], predicted[..., -1], retrainings.runs.values[..., -1], retrainings.repeated)
    assert vars(ahead).items() <= rows["all", "tangent_targets", UPDATES, "kernel_tracin"].items()
    assert [panel.title for panel in figure.panels] == [f"{CONFIG}, run 0004", f"{CONFIG}, run 0010"]
    assert {series.method for series in figure.panels[0].series} == by_method.keys()


def test_exact_effects_are_computed_only_where_they_are_asked_for(dataset: Path, tmp_path: Path) -> None:
    bench = Workbench(str(dataset), ("mini_sentiment_nano",))
    result = run_experiment("counterfactuals", bench, tmp_path).result
    assert result.skipped == [
        "mini_sentiment_nano: no runs made again with rows left out; collect with --counterfactuals"
    ]
    assert not result.rows and not result.notes


def test_runs_are_drawn_with_the_reference_run_among_them(repeated: str) -> None:
    runs = read_dynamics(repeated, CONFIG).split("train")
    for number in (1, 2, 5, len(runs.runs)):
        chosen = draws(runs, number)
        assert chosen[0] == list(range(number))
        assert len(chosen) == (1 if number in (1, len(runs.runs)) else DRAWS)
        assert all(len(set(each)) == number and 0 in each for each in chosen)
    # Of the others, the second has kernels.
    assert all(2 in each for each in draws(runs.take([3, 4, 0, 1]), 2)) and runs.runs[0] == "0000"


def test_every_number_of_runs_is_scored_against_the_same_mean_curve(
    repeated: str, retrainings: RetrainedTestRuns, tmp_path: Path
) -> None:
    result = run_experiment("number-of-runs", Workbench(repeated, (CONFIG,)), tmp_path).result
    runs = read_dynamics(repeated, CONFIG)
    training, test = runs.split("train"), runs.split("test")
    reference = MeanCurve(runs.split("train", "validation")).predict(test)
    rows = {(row["method"], row["number"], row["draw"]): row for row in result.rows}
    for number in (1, 2, 4, 8):
        predicted = MeanCurve(training.take(list(range(number)))).predict(test)
        row = rows["mean_curve", number, 0]
        assert row["skill"] == pytest.approx(score_prediction(predicted, test.values, reference).skill)
        assert row["runs"] == training.runs[:number] and row["lds"] is None
        # Already one run ranks retrainings, by the coefficients of the package.
        tangent = rows["tangent", number, 0]
        assert tangent["lds_low"] <= tangent["lds"] <= tangent["lds_high"] and tangent["retrainings"] == 11
    assert {number for method, number, _ in rows if method == "memory_label"} == {8}
    assert any("memory_label, fitted on 1, 2, 4: memory dynamics need at least 5" in each for each in result.skipped)
    [table, of_lds], [figure] = result.tables, result.figures
    assert table.columns == ["config", "method", "1", "2", "4", "all"] and "mean_curve" not in {
        line[1] for line in of_lds.rows
    }
    skills = [rows["tangent", 4, draw]["skill"] for draw in range(DRAWS)]
    [line] = [line for line in table.rows if line[1] == "tangent"]
    assert line[4] == number_text(float(np.mean(skills)), float(np.std(skills, ddof=1)), decimals=2)
    assert [panel.y_title for panel in figure.panels] == ["skill", "LDS, last step"]
    assert {series.method: list(series.x) for series in figure.panels[0].series}["tangent"] == [1, 2, 4, 8]


def test_without_retrainings_there_is_skill_alone(dataset: Path, tmp_path: Path) -> None:
    result = run_experiment("number-of-runs", Workbench(str(dataset), ("mini_sentiment_nano",)), tmp_path).result
    assert any(each.endswith("; no LDS") for each in result.skipped)
    assert {row["number"] for row in result.rows} == {1, 2, 4, 6}
    assert [panel.y_title for panel in result.figures[0].panels] == ["skill"]


def test_a_report_says_how_its_methods_rank_retrainings(
    repeated: str, retrainings: RetrainedTestRuns, tmp_path: Path
) -> None:
    settings = TrainSettings(repeated, CONFIG, dynamics="tangent")
    trained = train_simulator(settings)
    trained.save(tmp_path / "model", settings)
    report(repeated, tmp_path / "report.html", config=CONFIG, models=(str(tmp_path / "model"),))
    page = (tmp_path / "report.html").read_text()
    section = page[page.index("Runs made again with rows left out") :]
    score = lds(
        Simulated(trained.model).predict(retrainings.runs)[..., -1],
        retrainings.runs.values[..., -1],
        retrainings.repeated,
    )
    assert interval_text(score.value, score.low, score.high) in section and "all (11)" in section


def test_validation_takes_the_retrainings_of_the_dataset_and_trains_the_other_changes(
    repeated: str, retrainings: RetrainedTestRuns, tmp_path: Path
) -> None:
    training = TrainSettings(repeated, CONFIG, dynamics="tangent")
    train_simulator(training).save(tmp_path / "model", training)
    settings = ValidateSettings(
        repeated,
        str(tmp_path / "model"),
        "0004",
        each=3,
        test_examples=3,
        measured=3,
        workers=1,
        output=tmp_path / "out",
    )
    assert trainings_of(settings)[0] == 9
    validation = validate(settings)
    assert validation.kinds.count("leave_out") == validation.recorded == 6 and len(validation.kinds) == 15
    own, tests = retrainings.runs.take(retrainings.places("0004").tolist()), [0, 2, 5]
    np.testing.assert_array_equal(validation.truth[:6], own.values[:, tests])
    simulated = Simulated(load_simulator(settings.model)).predict(own)[:, tests]
    np.testing.assert_allclose(validation.predicted["tangent"][:6], simulated, rtol=1e-5)
    result = validation.result()
    [table] = [table for table in result.tables if "by number of updates" in table.title]
    assert table.columns == ["method", "4", "8"] and table.rows[0][0] == "tangent"
    chosen = np.isin(validation.kinds, SUBSETS)
    score = lds(validation.predicted["tangent"][chosen, :, 1], validation.truth[chosen, :, 1])
    assert table.rows[0][1] == interval_text(score.value, score.low, score.high)
