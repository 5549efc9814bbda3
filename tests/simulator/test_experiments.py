"""Every experiment on hand-made runs: tables, figures, reasons for what is skipped, and the files written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator.evaluation.held_out import mean_curves
from simulator.experiments import EXPERIMENTS, Workbench, registry, run_all, run_experiment
from simulator.experiments.checkpoint_interval import held, thinned
from simulator.experiments.comparison import score_grid
from simulator.experiments.estimation import average_rows
from simulator.experiments.paper_tables import PAPER_METHODS, paper_row, paper_rows
from simulator.experiments.trajectories import median_pair
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.reporting.result_files import Finished, markdown, write_result_page
from simulator.settings.experiment import EXPERIMENT_NAMES
from simulator.training import markov_fit
from tests.simulator.conftest import RUNS, write_runs

CONFIG, TRIPLES = "mini_sentiment_nano", "mini_triples_nano"
pytestmark = pytest.mark.usefixtures("quick_markov")


@pytest.fixture(scope="module")
def bench(dataset: Path) -> Workbench:
    return Workbench(str(dataset), (CONFIG,))


@pytest.fixture(scope="module")
def bench_of_two(dataset: Path) -> Workbench:
    """Of runs on base models of two sizes."""
    return Workbench(str(dataset), ("mini_sentiment_tiny", CONFIG))


def rows_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["rows"]


def test_the_papers_tables_are_those_of_its_text() -> None:
    assert {row.table for row in paper_rows()} == {"1", "2", "3", "4", "10", "11", "12"}
    text = Path(__file__).parents[3] / "shared/paper/000_6814eeeb0bd5d829.txt"
    if not text.exists():
        pytest.skip("the paper's text is not here")
    words = text.read_text(encoding="utf-8")
    for row in paper_rows():
        for key in ("mse", "mae", "spearman"):
            figure = getattr(row, key)
            assert re.search(rf"(?<![\d.]){re.escape(f'{figure:g}')}0*(?!\d)", words), (row, key)


def test_a_row_of_the_paper_is_found_by_our_name_of_its_method() -> None:
    ours = paper_row("2", "sst2", "loss", "markov_1")
    assert ours is not None
    assert (ours.mse, ours.mse_std, ours.mae, ours.spearman) == (0.014, 0.006, 0.081, 0.943)
    assert paper_row("2", "sst2", "loss", "memory_gradient") is None
    large = paper_row("1", "rte", "loss", "tracin_cp_all", size="2.8b")
    assert large is not None
    assert (large.mse, large.spearman_std) == (10.256, None)
    assert {row.method for row in paper_rows()} == set(PAPER_METHODS.values())


@pytest.mark.parametrize(
    ("value", "deviation", "text"),
    [
        (None, None, "-"),
        (0.0641, 0.0449, "0.064 (0.045)"),
        (12.345, None, "12.35"),
        (-1487.75, None, "-1488"),
        (2.7e25, None, "2.7e+25"),
        (-8e-8, None, "0.000"),
        (2e-5, None, "2.0e-05"),
    ],
)
def test_figures_are_short_and_say_when_they_are_undefined(
    value: float | None, deviation: float | None, text: str
) -> None:
    assert number_text(value, deviation) == text


def test_averages_are_of_ratios_and_missing_figures_have_none() -> None:
    def row(task: str, method: str, mse: float | None, spearman: float | None) -> dict:
        figures = {"mse": mse, "mae": mse, "spearman": spearman, "skill": 0.5}
        return {"config": f"{task}_nano", "task": task, "method": method} | figures

    rows = [
        row("a", "mean_curve", 2.0, 0.5),
        row("a", "good", 1.0, 0.7),
        row("a", "partial", 1.0, None),
        row("b", "mean_curve", 200.0, 0.1),
        row("b", "good", 50.0, 0.3),
        row("b", "partial", None, 0.3),
    ]
    found = {each["method"]: each for each in average_rows(rows)}
    assert found["good"]["mse_ratio"] == pytest.approx((0.5 + 0.25) / 2)
    assert found["good"]["spearman"] == pytest.approx(0.5)
    assert found["mean_curve"]["mse_ratio"] == 1
    assert (found["partial"]["mse_ratio"], found["partial"]["spearman"]) == (None, None)


def test_runs_measured_now_and_then(
    make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list[Curriculum]]
) -> None:
    values = np.random.default_rng(0).uniform(size=(3, 2, 9))
    runs = make_dynamics(make_curricula(0, 3, 8, 6), values, 6)
    filled, few = held(runs, 3), thinned(runs, 3)
    assert few.step.tolist() == [0, 3, 6, 8]
    for step in range(9):
        nearest = min(at for at in (0, 3, 6, 8) if at >= step)
        np.testing.assert_array_equal(filled.values[..., step], runs.values[..., nearest])
    np.testing.assert_array_equal(few.values, runs.values[..., [0, 3, 6, 8]])
    np.testing.assert_array_equal(held(runs, 1).values, runs.values)


def test_the_reference_for_unseen_test_examples_is_their_start_plus_the_mean_change(
    make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list[Curriculum]]
) -> None:
    values = np.random.default_rng(0).uniform(size=(4, 6, 5))
    training = make_dynamics(make_curricula(0, 4, 4, 6), values, 6)
    chosen = replace(training.take([1]), test=training.test[1:3], values=training.values[[1]][:, 1:3])
    found = mean_curves(training, chosen, [0, 3], True)
    for step in range(5):
        change = np.mean([values[run, test, step] - values[run, test, 0] for run in range(4) for test in (0, 3)])
        np.testing.assert_allclose(found[0, :, step], chosen.values[0, :, 0] + change, rtol=1e-5)
    seen = mean_curves(training, replace(chosen, values=chosen.values), [1, 2], False)
    np.testing.assert_allclose(seen[0], values[:, [1, 2]].mean(0), rtol=1e-5)


def test_loss_finetune_scores_every_method_and_puts_the_paper_beside(bench: Workbench, tmp_path: Path) -> None:
    finished = run_experiment("loss-finetune", bench, tmp_path)
    rows = rows_of(tmp_path / "loss-finetune.json")
    methods = [row["method"] for row in rows]
    assert methods[0] == "persistence"
    assert {"mean_curve", "simfluence_linear_adamw", "update_dot", "markov_1", "memory_gradient"} <= set(methods)
    evaluation = bench.evaluation(CONFIG, "loss")
    for row, scored in zip(rows, evaluation.rows, strict=True):
        assert row["mse"] == pytest.approx(scored.mse) if scored.mse is not None else row["note"]
        assert (row["skill"] is None) == (scored.skill is None)
    text = (tmp_path / "loss-finetune.md").read_text()
    skills = {row["method"]: row["skill"] for row in rows}
    assert f"| memory_gradient | {number_text(skills['memory_gradient'], decimals=2)} |" in text
    assert "| tracin_cp_10 |" not in text and "mini_sentiment_nano 1 x 6" in text
    assert any("collect with --gradients test" in reason for reason in finished.result.skipped)
    assert {path.name for path in tmp_path.iterdir()} == {"loss-finetune.json", "loss-finetune.md"}


def test_other_metrics_of_a_generation_task(dataset: Path, tmp_path: Path) -> None:
    run_experiment("metrics-finetune", Workbench(str(dataset), (TRIPLES,)), tmp_path)
    rows = rows_of(tmp_path / "metrics-finetune.json")
    assert {row["metric"] for row in rows} == {"bleu", "rougeL"}
    skipped = json.loads((tmp_path / "metrics-finetune.json").read_text())["skipped"]
    assert any("bleu has no gradient" in reason for reason in skipped)


def test_a_dataset_without_the_scenario_gives_an_empty_result(bench: Workbench, tmp_path: Path) -> None:
    result = run_experiment("loss-instruct", bench, tmp_path).result
    assert (result.rows, result.tables, result.notes) == ([], [], [])


def test_configs_that_are_not_there_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no config 'rte_nano'; it has: .*mini_sentiment_nano"):
        run_experiment("cost", Workbench(str(dataset), ("rte_nano",)), tmp_path)
    with pytest.raises(SettingsError, match="has no runs; it has configs: none"):
        run_experiment("cost", Workbench(str(tmp_path)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_few_runs_are_a_reason(dataset: Path, tmp_path: Path) -> None:
    result = run_experiment("trajectories", Workbench(str(dataset), ("mini_sentiment_few",)), tmp_path).result
    assert result.skipped == ["mini_sentiment_few: no validation and no test runs; collect at least 6"]
    assert result.figures == []


def test_checkpoint_intervals_are_scored_on_every_step(bench: Workbench, tmp_path: Path) -> None:
    run_experiment("checkpoint-interval", bench, tmp_path)
    rows = rows_of(tmp_path / "checkpoint-interval.json")
    assert {row["interval"] for row in rows} == {1, 2, 3, 5, 10}
    exact = [row for row in rows if (row["method"], row["interval"]) == ("mean_curve", 1)]
    assert exact[0]["skill"] == pytest.approx(0)
    coarse = [row for row in rows if (row["method"], row["interval"]) == ("mean_curve", 5)]
    assert coarse[0]["mse"] > exact[0]["mse"]
    assert (tmp_path / "checkpoint-interval.svg").exists()


def test_orders_that_fit_the_run_are_compared_on_the_same_steps(bench: Workbench, tmp_path: Path) -> None:
    run_experiment("markov-order", bench, tmp_path)
    rows = rows_of(tmp_path / "markov-order.json")
    assert [row["order"] for row in rows if row["order"]] == [1, 2, 3, 5]
    shifted = next(row for row in rows if row["method"] == "mean_curve_shifted")
    runs = bench.runs(CONFIG)
    held_out, seen = runs.split("test").values, runs.split("train", "validation").values.mean(0)
    predicted = seen + held_out[..., 4:5] - seen[:, 4:5]
    assert shifted["mse"] == pytest.approx(float(np.square(predicted - held_out)[..., 5:].mean()), rel=1e-4)


def test_other_orders_take_the_setting_of_order_1_which_is_fitted_once(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markov_fit, "LEARNING_RATES", (1e-3, 1e-2))
    phases: list[str] = []
    bench = Workbench(str(dataset), (CONFIG,), lambda name, total: phases.append(name))
    settings = bench.settings(CONFIG, "loss", "markov", "sentence")
    third = bench.like_tuned(settings, order=3)
    best = bench.trained(settings)
    assert len(best.tried) == 2
    assert (third.learning_rate, third.penalty, third.hidden) == tuple(best.choice.values())
    assert third.order == 3
    assert [tried | {"error": 0} for tried in bench.trained(third).tried] == [best.choice | {"error": 0}]
    assert bench.trained(settings) is best
    bench.evaluation(CONFIG, "loss")
    assert phases.count(f"{CONFIG} loss: markov, sentence vectors: fitting") == 2


def test_encoders_and_unseen_examples(bench: Workbench, tmp_path: Path) -> None:
    run_experiment("encoders", bench, tmp_path)
    rows = rows_of(tmp_path / "encoders.json")
    assert {("gradient", "markov"), ("gradient", "memory"), ("label", "memory"), ("causal_lm nano", "markov")} <= {
        (row["encoder"], row["dynamics"]) for row in rows
    }
    result = run_experiment("unseen", bench, tmp_path).result
    assert {row["variant"] for row in result.rows} == {"unseen test"}
    assert next(row for row in result.rows if row["method"] == "mean_curve")["skill"] == pytest.approx(0)
    assert any("no runs on unseen pool rows" in reason for reason in result.skipped)
    [table] = result.tables
    assert table.columns == ["variant", "method", CONFIG] and ["unseen test", "mean_curve", "0.00"] in table.rows


def test_sizes_need_two_of_them(tmp_path: Path, bench: Workbench, bench_of_two: Workbench) -> None:
    alone = run_experiment("model-size", bench, tmp_path).result
    assert alone.skipped == ["mini_sentiment: only one size of base model (nano)"]
    result = run_experiment("model-size", bench_of_two, tmp_path).result
    # From the smallest base model to the largest.
    assert list(dict.fromkeys(row["size"] for row in result.rows)) == ["tiny", "nano"]


def test_cost_times_what_there_is(bench: Workbench, tmp_path: Path) -> None:
    result = run_experiment("cost", bench, tmp_path).result
    assert {"mean_curve", "simfluence_linear", "markov_1", "memory_gradient"} <= {row["method"] for row in result.rows}
    assert all(row["seconds"] > 0 and row["of_published"] is None for row in result.rows)
    assert len(result.skipped) == 1
    assert result.skipped[0].startswith(
        f"{CONFIG}, TracIn-CP: the runs of {CONFIG} cannot be repeated: it started from nano 0123456789ab"
    )


def test_a_base_model_that_is_gone_costs_only_what_needs_it(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", CONFIG, str(tmp_path / "gone"), RUNS)
    bench = Workbench(str(tmp_path / "runs"))
    lost = f"cannot load base model '{tmp_path / 'gone'}'"
    interval = run_experiment("checkpoint-interval", bench, tmp_path / "out").result
    assert not interval.rows
    assert any(lost in reason for reason in interval.skipped)
    unseen = run_experiment("unseen", bench, tmp_path / "out").result
    assert {row["method"] for row in unseen.rows} == {"mean_curve", "markov_1", "memory_sentence"}
    assert any(reason.startswith(f"{CONFIG}, loss, memory with gradient vectors: {lost}") for reason in unseen.skipped)
    cost = run_experiment("cost", bench, tmp_path / "out").result
    assert "markov_1" in {row["method"] for row in cost.rows}
    assert any(lost in reason for reason in cost.skipped)


def test_an_experiment_that_fails_does_not_end_the_others(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bench: Workbench) -> Result:
        raise DataError("the disk is full of holes")

    chosen = {name: EXPERIMENTS[name] for name in ("loss-instruct", "model-size")}
    chosen |= {"cost": replace(EXPERIMENTS["cost"], measure=fails)}
    monkeypatch.setattr(registry, "EXPERIMENTS", chosen)
    done = {each.name: each.result.skipped for each in run_all(Workbench(str(dataset), (CONFIG,)), tmp_path)}
    assert list(done) == ["loss-instruct", "model-size", "cost"]
    assert done["cost"] == ["the disk is full of holes"]
    assert not (tmp_path / "cost.json").exists()
    with pytest.raises(SettingsError, match="no config 'other'"):
        list(run_all(Workbench(str(dataset), ("other",)), tmp_path))


def test_the_drawn_example_is_one_of_median_error(bench: Workbench) -> None:
    evaluation = bench.evaluation(CONFIG, "loss")
    pair = median_pair(evaluation, "mean_curve")
    errors = np.square(evaluation.predictions["mean_curve"] - evaluation.runs.values).mean(-1)
    assert pair is not None and abs((errors < errors[pair]).mean() - 0.5) <= 1 / errors.size
    still = replace(evaluation, runs=replace(evaluation.runs, values=np.ones_like(evaluation.runs.values)))
    assert median_pair(still, "mean_curve") is None


def test_trajectories_of_every_config_are_one_picture(bench_of_two: Workbench, tmp_path: Path) -> None:
    result = run_experiment("trajectories", bench_of_two, tmp_path).result
    # Those on nano come last.
    assert [row["config"] for row in result.rows] == ["mini_sentiment_tiny", CONFIG]
    [figure] = result.figures
    assert {"truth", "mean_curve", "markov_1", "memory_gradient"} <= {line.method for line in figure.panels[1].series}
    row = result.rows[1]
    runs = bench_of_two.runs(CONFIG).split("test")
    test = [example.id for example in runs.test].index(row["test_id"])
    np.testing.assert_allclose(row["truth"], runs.values[runs.runs.index(row["run"]), test], rtol=1e-4)
    assert "![True and predicted loss" in (tmp_path / "trajectories.md").read_text()
    assert (tmp_path / "trajectories.svg").exists()


def test_a_table_of_scores_leaves_out_methods_without_any() -> None:
    rows = [
        {"config": "a_nano", "method": "one", "skill": 0.256},
        {"config": "b_nano", "method": "one", "skill": -123.4},
        {"config": "a_nano", "method": "none", "skill": None},
        {"config": "b_nano", "method": "two", "skill": 1.0},
    ]
    [table] = score_grid("loss", rows, "skill")
    assert table.columns == ["method", "a_nano", "b_nano"]
    assert table.rows == [["one", "0.26", "\u2212123"], ["two", "", "1.00"]]
    assert score_grid("loss", rows[2:3], "skill") == []


def test_what_was_finished_before_is_not_made_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def measure(bench: Workbench, name: str) -> Result:
        made.append(name)
        return Result(rows=[{"mse": 0.5}], skipped=["nothing"])

    def show(rows: list[dict]) -> Result:
        panel = Panel("", "x", "y", [Series("mean_curve", [0, 1], [rows[0]["mse"], None])])
        return Result([Table("t", ["method"], [["mean_curve"]])], [Figure("f", [panel])], notes=["note"])

    names = list(EXPERIMENTS)[:2]
    chosen = {name: replace(EXPERIMENTS[name], measure=partial(measure, name=name), show=show) for name in names}
    monkeypatch.setattr(registry, "EXPERIMENTS", chosen)
    (tmp_path / "index.md").write_text("by hand")
    (tmp_path / "other.json").write_text('{"experiment": "other", "command": ""}')
    bench = Workbench(str(dataset), (CONFIG,))
    first = list(run_all(bench, tmp_path))
    text = (tmp_path / f"{names[0]}.md").read_text()
    (tmp_path / f"{names[0]}.md").unlink()
    (tmp_path / f"{names[1]}.json").write_text('{"damaged"')
    again = list(run_all(bench, tmp_path))
    assert made == [*names, names[1]]
    # Its page is written again from its numbers; what others wrote stays.
    assert again[0].result == first[0].result and (tmp_path / f"{names[0]}.md").read_text() == text
    assert (tmp_path / "index.md").read_text() == "by hand"
    list(run_all(Workbench(str(dataset), ("mini_triples_nano",)), tmp_path))
    assert made[3:] == names


def test_a_page_says_what_is_asked_and_how_it_was_obtained() -> None:
    reasons = [f"a_nano, m{number}: no runs" for number in range(4)]
    few = Finished("x", "Title", Result(notes=["Note."], skipped=reasons[:2]), "gptfluence x", 2.0, "What?")
    assert markdown(few, []).startswith(
        "# Title\n\nWhat?\n\n* Note.\n\nMade by `gptfluence x` in 2 s with gptdynamics "
    )
    assert "a_nano, m0: no runs; a_nano, m1: no runs." in markdown(few, [])
    many = replace(few, result=Result(skipped=reasons))
    assert "a_nano m0, a_nano m1, a_nano m2, a_nano m3 (reasons: x.json)." in markdown(many, [])


def test_texts_cannot_become_markup(tmp_path: Path) -> None:
    evil = "</script><b>|x"
    figure = Figure(evil, [Panel(evil, "x", "y", [Series("mean_curve", [0, 1], [1.0, None], label=evil)])])
    table = Table(evil, ["method"], [[evil]])
    finished = Finished("evil", evil, Result([table], [figure], [], [evil], [evil]), evil, 1.0)
    write_result_page(tmp_path / "page.html", finished)
    assert "<b>" not in (tmp_path / "page.html").read_text().replace("&lt;b&gt;", "")
    assert "\\|x |" in markdown(finished, [])


def test_an_unknown_experiment_is_refused_with_the_names(bench: Workbench, tmp_path: Path) -> None:
    assert tuple(EXPERIMENTS) == EXPERIMENT_NAMES
    with pytest.raises(SettingsError, match=r"no experiment 'magic'; there are: counterfactuals, .*, all"):
        run_experiment("magic", bench, tmp_path)


def test_convergence_draws_both_trainings(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markov_fit, "FINETUNE_EPOCHS", 12)
    monkeypatch.setattr(markov_fit, "FINETUNE_RATE", 0.02)
    result = run_experiment("convergence", bench, tmp_path).result
    hows = ["table 9", "table 9 from normal factors", "table 8", "as used elsewhere"]
    assert [row["training"] for row in result.rows] == hows
    losses = result.figures[0].panels[0].series
    assert [series.name for series in losses] == [
        "simfluence, table 9",
        "simfluence, table 9 from normal factors",
        "markov, table 8",
    ]
    assert len(losses[2].y) == 12
    for series in losses:
        assert series.y[-1] is not None
        assert series.y[0] is not None
        assert series.y[-1] < series.y[0]
