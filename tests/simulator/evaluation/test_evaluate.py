"""Every method on the same held-out runs."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator.baselines import MeanCurve, Persistence
from simulator.encoders.sentence import OFFLINE_PACKAGE
from simulator.evaluation import EvaluateSettings, Evaluation, Row, evaluate, score_prediction
from simulator.evaluation.simulated import Simulated, load_simulator, method_name
from simulator.reporting.tables import rows_table
from simulator.training import TrainSettings, train_simulator
from tests.simulator.conftest import write_runs

CONFIG = "mini_sentiment_nano"
KEYS = {
    "method",
    "model",
    "config",
    "metric",
    "split",
    "mse",
    "mse_std",
    "mae",
    "mae_std",
    "spearman",
    "spearman_std",
    "skill",
    "coverage",
    "runs",
    "examples",
    "note",
}
PARTS = ("encoding", "fitting")
BASELINE_ROWS = [
    "persistence",
    "mean_curve",
    "mean_curve_shifted",
    "simfluence_additive",
    "simfluence_multiplicative",
    "simfluence_linear",
    "simfluence_linear_adamw",
    "tracin_cp_10",
    "tracin_cp_all",
    "grad_dot",
    "update_dot",
]
SKIPPED = BASELINE_ROWS[-4:]


@pytest.fixture(scope="module")
def runs(dataset: Path) -> Dynamics:
    return read_dynamics(dataset, CONFIG, "loss")


@pytest.fixture(scope="module")
def evaluation(dataset: Path, trained: dict[str, str]) -> Evaluation:
    """Of one memory and one markov simulator."""
    return evaluate(EvaluateSettings(str(dataset), CONFIG, models=(trained["memory"], trained["markov"])))


def by_method(evaluation: Evaluation) -> dict[str, Row]:
    return {row.method: row for row in evaluation.rows}


def test_baselines_come_first_and_the_given_models_last(evaluation: Evaluation, trained: dict[str, str]) -> None:
    assert [(row.method, row.model) for row in evaluation.rows] == [
        *[(name, None) for name in BASELINE_ROWS],
        ("memory_label", None),
        ("memory_label (memory)", trained["memory"]),
        ("markov_1_label", trained["markov"]),
    ]


def test_every_row_says_what_it_is_of(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        assert (row.config, row.metric, row.split) == (CONFIG, "loss", "test")
        assert (row.runs, row.examples, row.coverage) == (1, 6, None)


def test_only_the_test_runs_are_scored(evaluation: Evaluation, runs: Dynamics) -> None:
    assert evaluation.runs.runs == ["0004"]
    np.testing.assert_array_equal(evaluation.runs.values, runs.split("test").values)


def test_rows_are_the_scores_of_the_predictions(evaluation: Evaluation) -> None:
    truth, reference = evaluation.runs.values, evaluation.predictions["mean_curve"]
    assert evaluation.predictions.keys() == by_method(evaluation).keys() - set(SKIPPED)
    for name in evaluation.predictions:
        row = by_method(evaluation)[name]
        figures = asdict(score_prediction(evaluation.predictions[name], truth, reference, 1))
        assert figures == {key: getattr(row, key) for key in figures}


def test_what_cannot_be_had_is_a_row_with_the_reason(evaluation: Evaluation) -> None:
    for name in SKIPPED:
        row = by_method(evaluation)[name]
        assert {row.mse, row.mse_std, row.mae, row.mae_std, row.spearman, row.spearman_std, row.skill} == {None}
        assert row.note is not None
        assert "collect with --gradients test" in row.note
        assert (row.runs, row.examples, row.still) == (1, 6, 0)
    text = shown(evaluation.rows)
    assert "grad_dot skipped: run 0004 of" in text
    assert all(row.note is None for row in evaluation.rows if row.method not in SKIPPED)


def test_gradient_methods_of_another_metric_than_the_loss_are_skipped(dataset: Path, trained: dict[str, str]) -> None:
    settings = EvaluateSettings(str(dataset), CONFIG, "accuracy", (trained["of accuracy"],), ("grad_dot",))
    rows = evaluate(settings).rows
    assert rows[0].note == "grad_dot predicts changes of the loss; accuracy has no gradient"
    assert [row.method for row in rows] == ["grad_dot", "memory_label", "memory_label (of-accuracy)"]


def test_the_shifted_mean_curve_is_given_the_longest_history(
    dataset: Path, trained: dict[str, str], runs: Dynamics
) -> None:
    names = ("mean_curve", "mean_curve_shifted")
    found = evaluate(EvaluateSettings(str(dataset), CONFIG, models=(trained["markov_2"],), baselines=names))
    plain, shifted = (found.predictions[name] for name in names)
    truth = runs.split("test").values
    np.testing.assert_array_equal(shifted[..., :2], truth[..., :2])
    np.testing.assert_allclose(
        (shifted - plain)[..., 1:], np.broadcast_to((truth - plain)[..., 1:2], plain[..., 1:].shape), atol=1e-6
    )


def test_an_unknown_baseline_is_refused(dataset: Path) -> None:
    with pytest.raises(SettingsError, match="no baseline 'tracin'; there are: persistence"):
        EvaluateSettings(str(dataset), CONFIG, baselines=("tracin",))


def test_the_mean_curve_is_that_of_training_and_validation_runs(evaluation: Evaluation, runs: Dynamics) -> None:
    others = [at for at, run in enumerate(runs.runs) if run != "0004"]
    np.testing.assert_allclose(evaluation.predictions["mean_curve"][0], runs.values[others].mean(0), rtol=1e-6)
    assert by_method(evaluation)["mean_curve"].skill == 0


def test_a_given_model_and_the_same_trained_here_agree(evaluation: Evaluation) -> None:
    rows = by_method(evaluation)
    here, given = (asdict(rows[name]) for name in ("memory_label", "memory_label (memory)"))
    differ = {key for key in here if here[key] != given[key]}
    assert differ == {"method", "model"}


def test_memory_finds_what_the_runs_were_made_with(evaluation: Evaluation) -> None:
    rows = by_method(evaluation)
    skill = rows["memory_label"].skill
    assert skill is not None
    assert skill > 0.8
    assert rows["persistence"].skill is not None
    assert rows["persistence"].skill < 0


def test_the_json_is_a_list_of_rows(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    evaluation.write_json(path)
    rows = json.loads(path.read_text())
    assert rows == [asdict(row) for row in evaluation.rows]
    assert rows[0].keys() >= KEYS


def test_all_rows_score_the_steps_after_the_longest_history(
    dataset: Path, trained: dict[str, str], runs: Dynamics
) -> None:
    settings = EvaluateSettings(str(dataset), CONFIG, models=(trained["memory"], trained["markov_2"]))
    rows = by_method(evaluate(settings))
    held_out = runs.split("test")
    error = np.square(Persistence().predict(held_out) - held_out.values)
    assert rows["persistence"].mse == pytest.approx(error[..., 2:].mean(), rel=1e-5)
    assert "markov_2_label" in rows


def test_a_generation_task_has_no_label_only_row(dataset: Path, trained: dict[str, str]) -> None:
    settings = EvaluateSettings(str(dataset), "mini_triples_nano", "rougeL", (trained["of triples"],))
    found = evaluate(settings)
    names = [row.method for row in found.rows]
    assert names == [*BASELINE_ROWS, "memory_label"]
    assert found.rows[-1].model == trained["of triples"]
    assert found.runs.step.tolist() == [0, 4, 8, 10]
    assert all(values.shape == found.runs.values.shape for values in found.predictions.values())


@pytest.mark.skipif(importlib.util.find_spec(OFFLINE_PACKAGE) is None, reason=f"{OFFLINE_PACKAGE} is not installed")
@pytest.mark.usefixtures("quick_markov")
def test_without_models_markov_and_memory_are_trained_with_each_encoder(dataset: Path) -> None:
    phases: list[str] = []
    settings = EvaluateSettings(str(dataset), "mini_sentiment_tiny")
    rows = evaluate(settings, lambda name, total: phases.append(name)).rows
    assert [row.method for row in rows] == [
        *BASELINE_ROWS,
        "markov_1",
        "memory_label",
        "memory_sentence",
        "memory_gradient",
    ]
    assert all(row.model is None and (row.mse is None) == (row.note is not None) for row in rows)
    assert phases == [
        "markov, sentence vectors: encoding",
        "markov, sentence vectors: fitting",
        "markov, sentence vectors: runs left out",
        *[f"memory, {kind} vectors: {part}" for kind in ("label", "sentence", "gradient") for part in PARTS],
        "baselines",
    ]


@pytest.mark.skipif(importlib.util.find_spec(OFFLINE_PACKAGE) is None, reason=f"{OFFLINE_PACKAGE} is not installed")
@pytest.mark.usefixtures("quick_markov")
def test_a_base_model_that_is_not_here_costs_one_row(tmp_path: Path) -> None:
    write_runs(tmp_path, "mini_sentiment_gone", "elsewhere/gone", 6)
    rows = evaluate(EvaluateSettings(str(tmp_path), "mini_sentiment_gone", baselines=("mean_curve",))).rows
    assert [row.method for row in rows] == [
        "mean_curve",
        "markov_1",
        "memory_label",
        "memory_sentence",
        "memory_gradient",
    ]
    assert rows[-1].mse is None
    assert rows[-1].note is not None
    assert "elsewhere/gone" in rows[-1].note
    assert all(row.mse is not None for row in rows[:-1])


def test_models_of_the_same_kind_and_folder_name_are_told_apart(
    dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    models = []
    for parent in ("first", "second"):
        shutil.copytree(trained["memory"], tmp_path / parent / "model")
        models.append(str(tmp_path / parent / "model"))
    found = evaluate(EvaluateSettings(str(dataset), CONFIG, models=tuple(models)))
    names = [row.method for row in found.rows]
    assert len(set(names)) == len(names) == len(found.predictions) + len(SKIPPED)
    assert names[-2:] == [f"memory_label ({model})" for model in models]


def test_a_model_that_blows_up_has_a_row_without_figures(
    dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "wild"
    wild = load_simulator(trained["markov"])
    wild.state_dict()["dynamics.train_side"].mul_(1e12)
    wild.save_pretrained(folder)
    found = evaluate(EvaluateSettings(str(dataset), CONFIG, models=(str(folder),)))
    row = found.rows[-1]
    assert (row.mse, row.mae, row.spearman, row.skill) == (None, None, None, None)
    found.write_json(tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text())[-1]["mse"] is None
    assert "-" in shown(found.rows[-1:])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("of accuracy", r"metric: model accuracy, data loss"),
        ("of triples", r"config: model mini_triples_nano, data mini_sentiment_nano"),
        ("of the tiny model", r"base model: model .*tiny_model.* data nano"),
    ],
)
def test_a_model_of_something_else_is_refused(dataset: Path, trained: dict[str, str], model: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        evaluate(EvaluateSettings(str(dataset), CONFIG, models=(trained["memory"], trained[model])))


def test_a_model_of_other_weights_of_the_same_name_is_refused(trained: dict[str, str], runs: Dynamics) -> None:
    method = Simulated(load_simulator(trained["memory"]), trained["memory"])
    with pytest.raises(SettingsError, match=r"base model: model nano 0123456789ab, data nano 9999"):
        method.predict(replace(runs, base_revision="9999"))


def test_a_folder_without_a_simulator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder with a GPTfluence simulator"):
        load_simulator(str(tmp_path))
    with pytest.raises(DataError, match="not a folder or Hub id with a GPTfluence simulator"):
        load_simulator(str(tmp_path / "nothing"))


def test_another_kind_of_model_is_refused(tiny_model_folder: Path) -> None:
    with pytest.raises(DataError, match="not the configuration of a model of type gptfluence"):
        load_simulator(str(tiny_model_folder))


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["dynamics.baseline"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def change_a_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["test_vectors"] = torch.zeros(2, 2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("damage", [cut, drop_a_weight, change_a_shape, break_the_config])
def test_a_damaged_simulator_is_refused(
    trained: dict[str, str], damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained["memory"], folder)
    damage(folder)
    with pytest.raises(DataError, match="GPTfluence simulator"):
        load_simulator(str(folder))


def test_too_few_runs_have_no_test_run(dataset: Path) -> None:
    with pytest.raises(DataError, match=r"no test runs; collect at least 6 runs \(it has 3\)"):
        evaluate(EvaluateSettings(str(dataset), "mini_sentiment_few"))


def test_method_names_say_dynamics_order_and_encoder(trained: dict[str, str]) -> None:
    model = load_simulator(trained["markov_2"])
    assert method_name(model) == "markov_2_label"
    model.config.encoder = {"encoder": "sentence"}
    assert method_name(model) == "markov_2"
    model.config.projection = "mlp"
    assert method_name(model) == "markov_2_mlp"
    assert method_name(load_simulator(trained["memory"])) == "memory_label"


def test_history_is_the_order_of_markov_and_one_for_memory(trained: dict[str, str]) -> None:
    assert [Simulated(load_simulator(trained[name])).history for name in ("memory", "markov", "markov_2")] == [1, 1, 2]


def test_a_simulator_predicts_test_examples_that_training_did_not_see(
    trained: dict[str, str], runs: Dynamics, dataset: Path
) -> None:
    half = replace(runs, test=runs.test[:3], values=runs.values[:, :3])
    settings = TrainSettings(str(dataset), CONFIG, encoder="label")
    method = Simulated(train_simulator(settings, runs=half).model)
    held_out = runs.split("test")
    found = method.predict(held_out)
    assert method.simulator.places(runs.test).tolist() == [0, 1, 2, -1, -1, -1]
    assert np.isfinite(found).all()
    unseen = (slice(None), slice(3, None))
    error = np.square(found - held_out.values)[unseen].mean()
    assert error < np.square(Persistence().predict(held_out) - held_out.values)[unseen].mean()
    np.testing.assert_array_equal(found[..., 0], held_out.values[..., 0])


def shown(rows: list[Row]) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(rows_table(rows))
    return captured.get()


def test_the_table_fits_a_terminal_of_80_columns(evaluation: Evaluation) -> None:
    long = replace(
        evaluation.rows[0], method="simfluence_multiplicative", mse=0.123456, mse_std=0.045678, skill=-1487.9
    )
    console = Console(width=80)
    with console.capture() as captured:
        console.print(rows_table([long]))
    text = captured.get()
    assert "…" not in text
    assert all(part in text for part in ("simfluence_multiplicative", "0.123 (0.046)", "-1488"))


def test_the_table_shows_every_method_and_what_was_held_out(evaluation: Evaluation) -> None:
    text = shown(evaluation.rows)
    assert "mini_sentiment_nano, loss: 1 held-out runs, 6 test examples" in text
    for row in evaluation.rows:
        [line] = [line for line in text.splitlines() if re.match(rf"[│┃] {re.escape(row.method)} +[│┃]", line)]
        if row.skill is None:
            assert line.count(" - ") == 4
        else:
            # A negative number that rounds to zero has no sign.
            skill = f"{row.skill:.3f}".replace("-0.000", "0.000")
            assert skill in line or f"{row.skill:.0f}" in line
    assert "never move" not in text


def test_the_table_counts_trajectories_that_never_move(
    make_dynamics: Callable[..., Dynamics], make_curricula: Callable[..., list[Curriculum]]
) -> None:
    values = np.random.default_rng(0).uniform(size=(3, 4, 5))
    values[1, 2] = 0.5
    runs = make_dynamics(make_curricula(0, 3, 4, 8), values, 8)
    predicted = MeanCurve(runs).predict(runs)
    figures = asdict(score_prediction(predicted, runs.values, predicted, 1))
    row = Row("mean_curve", None, CONFIG, "loss", "test", coverage=None, runs=3, examples=4, **figures)
    assert "1 of 12 trajectories never move" in shown([row])
