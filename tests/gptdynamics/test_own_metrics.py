"""Metrics of a task's own: from the task file to a simulation."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.curriculum import run_seed
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.reading import metrics_of
from gptdynamics.dataset.schema import read_parquet, trajectory_schema, write_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.exchange import export_release
from gptdynamics.hub.push import push
from gptdynamics.metrics import BLEU, LOSS, METRICS, RESERVED_NAMES, Metric
from gptdynamics.models.base_model import load_base_model
from gptdynamics.plans import PlanEntry
from gptdynamics.recorder import StepRecorder
from gptdynamics.runs import Bench
from gptdynamics.tasks import add_task_file, get_single_task, load_examples
from tests.gptdynamics.recorder.training import Loop
from tests.hub.server import Hub
from tests.own_metrics import RUNS, TASK, collect_notes, settings_of, task_file


@pytest.fixture(scope="module")
def collected(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of the task, whose file is named by nothing any more."""
    return collect_notes(tmp_path_factory.mktemp("own_metrics"), tiny_model_folder)


def test_an_own_metric_is_measured_of_the_text_that_bleu_is_of(
    collected: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    add_task_file(task_file(tmp_path))
    table = read_parquet(collected / "data" / "notes_tiny" / "test-0004.parquet")
    names = ["run", "test_id", "step", "loss", "generation_step", "bleu", "words_missing", "exact_match", "text_length"]
    assert table.column_names == names
    assert table["words_missing"].type == pa.list_(pa.float32())
    settings = settings_of(tiny_model_folder)
    bench = Bench.load(settings, None)
    texts = bench.test_set.generator.sample(  # type: ignore[union-attr]
        load_base_model(settings.base).model, [[*run_seed(settings, "0004"), 0, each.id] for each in bench.test]
    )
    assert [row[0] for row in table["text_length"].to_pylist()] == [len(text) for text in texts]
    for row, text, example in zip(table.to_pylist(), texts, bench.test, strict=True):
        (reference,) = example.references
        missing = np.mean([word not in text.split() for word in reference.split()])
        assert row["words_missing"][0] == pytest.approx(missing, abs=1e-7)
        assert row["exact_match"][0] == (text == reference)
        assert row["generation_step"] == [0, 2, 4, 6, 8]


def test_a_folder_says_what_its_metrics_are_without_the_task_file(collected: Path) -> None:
    assert metrics_of(collected, "notes_tiny") == ["loss", "bleu", "words_missing", "exact_match", "text_length"]
    runs = read_dynamics(collected, "notes_tiny", "words_missing")
    assert runs.values.shape == (RUNS, 6, 5)
    assert runs.step.tolist() == [0, 2, 4, 6, 8]
    assert runs.definition == Metric("words_missing", None, "words missing", "", 0, 1, higher_is_better=False)
    assert read_dynamics(collected, "notes_tiny", "loss").definition == LOSS
    assert read_dynamics(collected, "notes_tiny", "bleu").definition == BLEU
    manifest = json.loads((collected / "manifests" / "notes_tiny.json").read_text("utf-8"))
    assert manifest["metrics"][:2] == ["loss", "bleu"]
    length = manifest["metrics"][4]
    assert (length["name"], length["least"], length["greatest"]) == ("text_length", 0, None)
    with pytest.raises(SettingsError, match="it has: loss, bleu, words_missing, exact_match, text_length"):
        read_dynamics(collected, "notes_tiny", "rougeL")


def test_the_card_and_its_picture_show_them(collected: Path) -> None:
    card = (collected / "README.md").read_text("utf-8")
    assert "| loss, bleu, words_missing, exact_match, text_length |" in card
    assert "`words_missing` of `notes_tiny`: words missing (0-1), a metric of the task's own, 0 to 1; lower is" in card
    assert "`text_length` of `notes_tiny`: text_length (characters), a metric of the task's own, 0 or more" in card
    picture = (collected / "trajectories.svg").read_text("utf-8")
    for title in ("words missing (0-1)", "exact_match (0 or 1)", "text_length (characters)"):
        assert title in picture


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("words_missing", 1.5, "1.5 is not 0 to 1"),
        ("exact_match", 0.5, "0.5 is not 0 or 1"),
        ("text_length", -1.0, "-1 is not 0 or more"),
        ("text_length", float("nan"), "nan is not a finite number"),
    ],
)
def test_verify_knows_their_ranges(collected: Path, tmp_path: Path, name: str, value: float, said: str) -> None:
    add_task_file(task_file(tmp_path / "task"))
    folder = DatasetFolder(tmp_path / "dataset")
    shutil.copytree(collected, folder.root)
    path = folder.run_path("notes_tiny", "0004")
    table = read_parquet(path)
    values = table[name].to_pylist()
    values[2][1] = value
    place = table.column_names.index(name)
    write_parquet(
        table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type)), path
    )
    (fault,) = verify(folder.root).faults
    assert (fault.where, fault.what) == (name, f"test example 2, step 2: {said}")


def test_verify_says_when_the_manifest_does_not_describe_them(collected: Path, tmp_path: Path) -> None:
    add_task_file(task_file(tmp_path / "task"))
    root = tmp_path / "dataset"
    shutil.copytree(collected, root)
    path = root / "manifests" / "notes_tiny.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["metrics"][2]["least"] = 3
    path.write_text(json.dumps(manifest), encoding="utf-8")
    (fault,) = verify(root).faults
    assert str(fault).startswith("manifests/notes_tiny.json: metrics: metric words_missing: least=3 must be below")
    with pytest.raises(DataError, match=r"notes_tiny\.json: metrics: metric words_missing: least=3 .*Restore the file"):
        read_dynamics(root, "notes_tiny", "loss")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "higher_is_better=False",
            "higher_is_better=True",
            "higher_is_better of metric words_missing: False there, True",
        ),
        ('"bleu",', '"bleu", "rougeL",', "metric rougeL: only now"),
        ("least=0, greatest=1, binary=True", "least=0, greatest=2", "binary of metric exact_match: True there, False"),
    ],
)
def test_a_folder_is_not_gone_on_with_by_a_task_of_other_metrics(
    collected: Path, tiny_model_folder: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in TASK
    add_task_file(task_file(tmp_path, TASK.replace(old, new)))
    with pytest.raises(SettingsError, match=said):
        DatasetFolder(collected).check_settings(PlanEntry(settings_of(tiny_model_folder), RUNS))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("lambda text, references: float('nan')", "is nan, not a finite number. Correct its function"),
        ("lambda text, references: 2", "is 2, not 0 to 1. Correct its function or the metric's range"),
        ("lambda text, references: None", "cannot be computed: TypeError: float\\(\\) argument must be"),
        ("lambda text, references: 1 / len(references[1:])", "cannot be computed: ZeroDivisionError: division by zero"),
        ("lambda text, references: exit('a\\nb')", "cannot be computed: SystemExit: a b"),
        ("lambda text: 1", "cannot be computed: TypeError: .* takes 1 positional argument but 2 were given"),
    ],
)
def test_a_function_that_fails_is_one_line_with_task_example_and_metric(
    tmp_path: Path, tiny_model_folder: Path, function: str, said: str
) -> None:
    text = TASK[: TASK.index("    metrics = (")] + TASK[TASK.index("    def target") :]
    metric = f'    metrics = ("loss", Metric("wrong", {function}, least=0, greatest=1))\n\n'
    add_task_file(task_file(tmp_path, text.replace("    def target", metric + "    def target")))
    plan = (PlanEntry(settings_of(tiny_model_folder, steps=1, test_examples=2), 1),)
    with pytest.raises(SettingsError, match=f"^task notes, test example 0: metric wrong {said}") as error:
        collect(CollectSettings(plan, tmp_path / "out", workers=1))
    assert "\n" not in str(error.value)
    assert DatasetFolder(tmp_path / "out").finished("notes_tiny") == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ('("loss")', "metrics must be a tuple of names and metrics: write a comma"),
        ('("loss", "rouge")', "metric 'rouge' must be one of loss, accuracy, bleu, rougeL, or a Metric of your own"),
        ("(3,)", "metric 3 must be one of"),
        ('("accuracy",)', "accuracy needs labels, and the task has none"),
        ('(Metric("BLEU", len),)', "there is a metric 'bleu' already"),
        ('(Metric("x", len), Metric("x", min))', "there is a metric 'x' already"),
        ('(Metric("x"),)', "x needs score, a function of a text and its references"),
        ('(Metric("x", len, needs_text=False),)', "x needs score, .* and needs_text"),
        ('(Metric("x", 3),)', "metric x: score=3 must be a function of text and references"),
        ('(Metric("a b", len),)', "metric name 'a b' must begin with a letter"),
        ('(Metric("Test_ID", len),)', "metric name 'Test_ID' is that of another column"),
        ('(Metric("x", len, least=1, greatest=1),)', "metric x: least=1 must be below greatest=1"),
        ('(Metric("x", len, least="0"),)', "metric x: least='0' must be a number"),
        ('(Metric("x", len, least=-1e20),)', "metric x: least must be within 2147483647, or infinite"),
        ('(Metric("x", len, greatest=10**5000),)', "metric x: greatest must be within 2147483647, or infinite"),
        ('(Metric("x", len, least=float("nan")),)', "metric x: least=nan must be a number"),
        ('(Metric("x", len, binary=True),)', "metric x: binary=True needs the two values as least and greatest"),
        ('(Metric("x", len, latent="log-odds"),)', "metric x: latent='log-odds' needs least=0 and no greatest"),
        ('(Metric("x", len, latent="odds"),)', "metric x: latent='odds' must be one of value, log-odds"),
        ('(Metric("x", len, higher_is_better=1),)', "metric x: higher_is_better=1 must be True or False"),
        ('(Metric("x", len, title="a\\nb"),)', "metric x: title='a.*' must be a text on one line"),
    ],
)
def test_metrics_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, metrics: str, said: str) -> None:
    text = TASK[: TASK.index("    metrics = (")] + f"    metrics = {metrics}\n\n" + TASK[TASK.index("    def target") :]
    path = task_file(tmp_path, text)
    with pytest.raises(SettingsError, match=said) as error:
        add_task_file(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "own-task.md").read_text("utf-8")
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Metric(" in each]
    add_task_file(task_file(tmp_path, block))
    loss, rouge, own = get_single_task("capitals").followed_metrics
    assert (loss, rouge) == (LOSS, METRICS["rougeL"])
    assert own.score is not None
    assert [own.score(text, ("Rome",)) for text in ("Rome", "Paris")] == [1, 0]


def test_an_export_has_them(collected: Path, tmp_path: Path) -> None:
    add_task_file(task_file(tmp_path / "task"))
    export_release(collected, tmp_path / "out", ["notes_tiny"])
    files = sorted((tmp_path / "out").rglob("all_words_missing_trajectory.out"))
    written = [
        [point["loss"] for point in json.loads(line)["loss_trajectory"]]
        for file in files
        for line in file.read_text("utf-8").splitlines()
    ]
    # The layout has no step 0.
    values = read_dynamics(collected, "notes_tiny", "words_missing").values[..., 1:]
    assert sorted(written) == sorted(values.reshape(-1, 4).tolist())


def test_a_task_with_labels_generates_no_text(tmp_path: Path) -> None:
    text = TASK.replace('    name = "notes"', '    name = "notes"\n    labels = (" a", " b")')
    with pytest.raises(
        SettingsError,
        match=r"Notes\.metrics: bleu is measured on generated text, and a task with labels has none",
    ):
        add_task_file(task_file(tmp_path, text))


def test_a_task_may_follow_fewer_metrics_and_then_samples_no_text(tmp_path: Path, tiny_model_folder: Path) -> None:
    text = TASK[: TASK.index("    metrics = (")] + "    metrics = ()\n\n" + TASK[TASK.index("    def target") :]
    add_task_file(task_file(tmp_path, text))
    assert get_single_task("notes").followed_metrics == (LOSS,)
    plan = (PlanEntry(settings_of(tiny_model_folder, steps=1, test_examples=2), 1),)
    collected = collect(CollectSettings(plan, tmp_path / "out", workers=1))
    assert (collected.done, collected.sampled) == (["notes_tiny/0000"], 0)
    assert metrics_of(tmp_path / "out", "notes_tiny") == ["loss"]
    assert verify(tmp_path / "out").faults == []


def test_a_recorder_measures_them_too(tmp_path: Path, tiny_model_folder: Path) -> None:
    add_task_file(task_file(tmp_path))
    pool, test = (load_examples(get_single_task("notes"), part, count) for part, count in (("pool", 12), ("test", 4)))
    for run in range(2):
        loop = Loop(tiny_model_folder, pool, 2)
        made = loop.model, loop.tokenizer, loop.optimizer
        with StepRecorder(tmp_path / "d", "notes_tiny", pool, test, *made) as recorder:
            for ids in ([run, 1, 2, 3], [4, 5, 6, 7]):
                with recorder.step(ids):
                    loop.update(ids)
    assert verify(tmp_path / "d").faults == []
    runs = read_dynamics(tmp_path / "d", "notes_tiny", "words_missing")
    assert (runs.values.shape, runs.definition.higher_is_better) == ((2, 4, 3), False)
    folder = DatasetFolder(tmp_path / "d")
    recording = folder.recording("notes_tiny")
    assert recording is not None
    with pytest.raises(SettingsError, match=r"metrics: loss, .*, text_length there, the usual ones now"):
        folder.check_recorded("notes_tiny", runs.base_revision, recording, get_single_task("webnlg"))


def test_a_function_that_fails_in_training_ends_the_recording_not_the_training(
    tmp_path: Path, tiny_model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = "lambda text, references: calls.append(text) or 1 / (len(calls) < 6)"
    text = TASK.replace("lambda text, references: text in references", failing)
    add_task_file(task_file(tmp_path, f"calls = []\n{text}"))
    pool, test = (load_examples(get_single_task("notes"), part, count) for part, count in (("pool", 12), ("test", 4)))
    loop = Loop(tiny_model_folder, pool, 2)
    made = loop.model, loop.tokenizer, loop.optimizer
    with StepRecorder(tmp_path / "d", "notes_tiny", pool, test, *made) as recorder:
        for ids in ([0, 1, 2, 3], [4, 5, 6, 7]):
            with recorder.step(ids):
                loop.update(ids)
    assert loop.done == 2
    assert "task notes, test example 1: metric exact_match cannot be computed: ZeroDivisionError" in caplog.text


def test_a_push_carries_them_and_refuses_runs_of_other_metrics(hub: Hub, collected: Path, tmp_path: Path) -> None:
    add_task_file(task_file(tmp_path))
    push(collected, "ada/notes")
    assert read_dynamics("ada/notes", "notes_tiny", "words_missing").definition.higher_is_better is False
    other = tmp_path / "other"
    shutil.copytree(collected, other)
    path = other / "manifests" / "notes_tiny.json"
    path.write_text(path.read_text("utf-8").replace('"higher_is_better": false', '"higher_is_better": true'), "utf-8")
    with pytest.raises(SettingsError, match="higher_is_better of metric words_missing: False there, True here"):
        push(other, "ada/notes")


def test_every_column_of_trajectories_is_a_metric_or_reserved() -> None:
    names = set(trajectory_schema(list(METRICS.values()), mixture=True, gradients=True).names)
    assert names == {*METRICS, *RESERVED_NAMES}


@pytest.mark.parametrize(
    "metric", [*METRICS.values(), Metric("x", None, "X", "m", least=-3)], ids=lambda each: each.name
)
def test_a_metric_is_read_back(metric: Metric) -> None:
    assert Metric.from_dict(json.loads(json.dumps(metric.to_dict()))) == metric


def test_values_at_the_ends_of_a_range_are_inside_in_any_precision() -> None:
    metric = Metric("x", least=0.1, greatest=0.7)
    for kind in (np.float32, np.float64):
        values = np.array([0.1, 0.7, 0.4, 0.0999, 0.7001, np.nan], dtype=kind)
        assert metric.outside(values).tolist() == [False, False, False, True, True, False]
    assert METRICS["accuracy"].outside(np.array([0, 1, 0.5, -1])).tolist() == [False, False, True, True]
    assert not BLEU.outside(np.array([100 + 1e-13])).any()
