"""The `gptfluence` command, from the command line's words to its exit status."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open

from gptdynamics.metrics import METRICS
from simulator.cli import main, spread_models
from simulator.model.kinds import kind_names
from simulator.settings.train import DYNAMICS

CONFIG = "mini_sentiment_nano"
KEYS = (
    "method model config metric split mse mse_std mae mae_std spearman spearman_std skill coverage runs examples"
).split()


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def gptfluence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quick_markov: None
) -> Callable[..., Done]:
    """Run the command in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["gptfluence", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Done(int(stopped.value.code or 0), captured.out, captured.err)

    return run


def test_train_writes_a_simulator_and_says_how_good_it_is(
    gptfluence: Callable[..., Done], dataset: Path, tmp_path: Path
) -> None:
    done = gptfluence("train", dataset, "--config", CONFIG, "--encoder", "label", "--output", tmp_path / "model")
    assert done.status == 0, done.err
    assert "memory with label vectors, fitted on 7 runs: on runs left out, " in done.out
    assert "of the average run's squared error is removed: it predicts" in done.out and "settings {" not in done.out
    assert done.out.splitlines()[-1].startswith("next: gptfluence evaluate ")
    again = gptfluence("train", dataset, "--config", CONFIG, "--encoder", "label", "--output", tmp_path / "model", "-v")
    assert "mean squared error" in again.out and "settings {" in again.out
    assert f"saved in {tmp_path / 'model'}" in done.out.replace("\n", " ")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as weights:
        assert "dynamics.baseline" in weights.keys()  # noqa: SIM118


def test_train_takes_every_setting_of_markov(gptfluence: Callable[..., Done], dataset: Path, tmp_path: Path) -> None:
    words = "--dynamics markov --encoder label --order 2 --projection mlp --metric accuracy --seed 7".split()
    words += "--preset paper-finetune --no-bands --learning-rate 0.01 --penalty 0 --hidden 4".split()
    done = gptfluence("train", dataset, "--config", CONFIG, "--output", tmp_path, *words)
    assert done.status == 0, done.err
    assert "markov with label vectors, fitted on" in done.out and "was not computed" in done.out
    settings = json.loads((tmp_path / "training.json").read_text())["settings"]
    assert settings == {
        "dataset": str(dataset),
        "config": CONFIG,
        "metric": "accuracy",
        "dynamics": "markov",
        "encoder": "label",
        "order": 2,
        "projection": "mlp",
        "seed": 7,
        "encoder_model": None,
        "pooling": None,
        "kind": "linear",
        "preset": "paper-finetune",
        "learning_rate": 0.01,
        "penalty": 0.0,
        "hidden": 4,
        "objective": "one_step",
        "bands": False,
    }
    assert not (tmp_path / "checkpoints").exists()


def test_experiment_writes_its_files_and_says_what_it_skipped(
    gptfluence: Callable[..., Done], dataset: Path, tmp_path: Path
) -> None:
    config = ("--config", "mini_sentiment_few")
    done = gptfluence("experiment", "trajectories", dataset, *config, "--output", tmp_path)
    assert done.status == 0, done.err
    assert "trajectories: nothing could be done" in done.out
    assert "skipped: mini_sentiment_few: no validation and no test runs" in done.out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"trajectories.json", "trajectories.md"}
    wrong = gptfluence("experiment", "magic", dataset, "--output", tmp_path)
    assert wrong.status == 1
    assert "no experiment 'magic'; there are: counterfactuals" in wrong.err


def test_evaluate_scores_the_baselines_that_are_named(
    gptfluence: Callable[..., Done], dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.json"
    named = ("--baselines", "mean_curve", "--baselines", "grad_dot")
    models = ("--models", trained["memory"])
    done = gptfluence("evaluate", dataset, "--config", CONFIG, *models, *named, "--json", rows)
    assert done.status == 0, done.err
    methods = [row["method"] for row in json.loads(rows.read_text())]
    assert methods == ["mean_curve", "grad_dot", "memory_label", "memory_label (memory)"]
    wrong = gptfluence("evaluate", dataset, "--config", CONFIG, "--baselines", "magic")
    assert wrong.status == 1
    assert "no baseline 'magic'; there are: persistence" in wrong.err


def test_evaluate_prints_a_table_and_writes_its_rows(
    gptfluence: Callable[..., Done], dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.json"
    models = ("--models", trained["memory"], trained["markov"])
    done = gptfluence("evaluate", dataset, "--config", CONFIG, *models, "--json", rows)
    assert done.status == 0, done.err
    assert "persistence" in done.out
    assert "Traceback" not in done.err
    written = json.loads(rows.read_text())
    assert [row["model"] for row in written] == [None] * 12 + [trained["memory"], trained["markov"]]
    for row in written:
        assert set(KEYS) <= row.keys()
        assert isinstance(row["mse"], float) == (row["note"] is None)
        assert row["coverage"] is None
        assert (row["config"], row["metric"], row["split"], row["runs"], row["examples"]) == (
            CONFIG,
            "loss",
            "test",
            1,
            6,
        )


def test_report_writes_one_page_with_the_models(
    gptfluence: Callable[..., Done], dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    words = ("--config", CONFIG, "--models", trained["memory"], trained["markov"], "--output", page)
    done = gptfluence("report", dataset, *words)
    assert done.status == 0, done.err
    assert f"wrote {page}" in done.out.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    for name in ("memory_label", "markov_1_label", "mean_curve"):
        assert name in text
    assert "Runs made again" not in text


def test_report_takes_a_metric_measured_every_four_updates(
    gptfluence: Callable[..., Done], dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    words = "--config mini_triples_nano --metric rougeL".split()
    done = gptfluence("report", dataset, *words, "--models", trained["of triples"], "--output", page)
    assert done.status == 0, done.err
    assert page.stat().st_size > 10_000


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_report_draws_a_picture_when_asked(
    gptfluence: Callable[..., Done], dataset: Path, trained: dict[str, str], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.svg"
    words = ("--config", CONFIG, "--models", trained["memory"], "--output", tmp_path / "report.html")
    done = gptfluence("report", dataset, *words, "--figure", picture)
    assert done.status == 0, done.err
    assert "<svg" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("evaluate D --models A B --json F", "evaluate D --models A --models B --json F"),
        ("evaluate D --models A --config C B", "evaluate D --models A --config C B"),
        ("evaluate D --models A --models B", "evaluate D --models A --models B"),
        ("evaluate D --models=A --json F", "evaluate D --models=A --json F"),
        ("report D --json F --models A B C", "report D --json F --models A --models B --models C"),
        ("train D --config C", "train D --config C"),
        ("evaluate D --models", "evaluate D --models"),
        ("evaluate D --models --json F", "evaluate D --models --json F"),
        ("", ""),
    ],
)
def test_models_may_be_given_one_after_another(given: str, parsed: str) -> None:
    assert spread_models(given.split()) == parsed.split()


def test_models_without_a_value_is_an_error(gptfluence: Callable[..., Done], dataset: Path) -> None:
    done = gptfluence("evaluate", dataset, "--config", CONFIG, "--models")
    assert done.status == 2
    assert "--models" in done.err


TRAIN = "train {dataset} --output {out} --encoder label"
EVALUATE = "evaluate {dataset} --config mini_sentiment_nano"
MISTAKES = {
    "too few runs to evaluate": (
        "evaluate {dataset} --config mini_sentiment_few",
        "mini_sentiment_few has no test runs",
    ),
    "too few runs for memory": (TRAIN + " --config mini_sentiment_two", "at least 5"),
    "too few runs for markov": (TRAIN + " --config mini_sentiment_few --dynamics markov", "no validation runs"),
    "unknown metric": (TRAIN + " --config mini_sentiment_nano --metric bleu", "it has: loss, accuracy"),
    "unknown config": (TRAIN + " --config rte_nano", "it has: mini_sentiment_few, mini_sentiment_nano"),
    "config that is no name": (
        TRAIN + " --config ../../etc",
        "no runs of config '../../etc'; it has: mini_sentiment_few",
    ),
    "no dataset": ("evaluate {out}/nothing --config rte_nano", "no such dataset folder"),
    "unknown dynamics": (TRAIN + " --config mini_sentiment_nano --dynamics lstm", "memory, markov"),
    "unknown encoder": (
        "train {dataset} --output {out} --config mini_sentiment_nano --encoder bert",
        "sentence, causal_lm, gradient, label, index",
    ),
    "unknown projection": (TRAIN + " --config mini_sentiment_nano --projection cubic", "linear, mlp"),
    "order zero": (TRAIN + " --config mini_sentiment_nano --order 0", "order=0"),
    "no model folder": (EVALUATE + " --models {out}", "not a folder"),
    "a model that is no simulator": (EVALUATE + " --models {tiny}", "not a folder with a GPTfluence simulator"),
    "no runs on unseen rows": (EVALUATE + " --split test_unseen", "collect with --unseen-runs"),
    "a model that saw what is kept back": (
        EVALUATE + " --unseen-tests 0.5 --models {memory}",
        "was trained on 3 of the 3",
    ),
    "all test examples kept back": (EVALUATE + " --unseen-tests 1", "below 1"),
    "a pooling that label vectors do not have": (
        TRAIN + " --config mini_sentiment_nano --encoder label --pooling mean",
        "setting of sentence and causal_lm",
    ),
    "a model of another metric": (EVALUATE + " --models {accuracy}", "metric: model accuracy, data loss"),
    "a model of another config": (EVALUATE + " --models {triples}", "config: model mini_triples_nano"),
    "a report with a model of another metric": (
        "report {dataset} --config mini_sentiment_nano --output {out}/r.html --models {accuracy}",
        "metric: model accuracy, data loss",
    ),
    "output that is a file": (
        "train {dataset} --config mini_sentiment_nano --encoder label --output {dataset}/README.md",
        "cannot write",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_on_standard_error(
    mistake: str,
    gptfluence: Callable[..., Done],
    dataset: Path,
    trained: dict[str, str],
    tiny_model_folder: Path,
    tmp_path: Path,
) -> None:
    words, message = MISTAKES[mistake]
    places = {
        "dataset": dataset,
        "out": tmp_path,
        "tiny": tiny_model_folder,
        "memory": trained["memory"],
        "accuracy": trained["of accuracy"],
        "triples": trained["of triples"],
    }
    done = gptfluence(*words.format(**places).split())
    assert done.status == 1
    lines = [line for line in done.err.splitlines() if line.strip()]
    if mistake == "output that is a file":
        lines = lines[-1:]  # after the progress of the training
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


WITHOUT_SLOW_LIBRARIES = """
import sys
from simulator.cli import main

sys.argv = ["gptfluence", *sys.argv[1:]]
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
slow = {"torch", "transformers", "sentence_transformers", "datasets", "scipy", "plotly"} & sys.modules.keys()
assert not slow, slow
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_answers_without_the_slow_libraries(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SLOW_LIBRARIES, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    wanted = ("train", "evaluate", "report") if arguments == ["--help"] else ("--dynamics", "--encoder")
    assert all(word in done.stdout for word in wanted)


def test_the_installed_command_ends_with_status_one_and_no_traceback(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "gptfluence"
    if not command.exists():
        pytest.skip("the package's commands are not installed beside this Python")
    done = subprocess.run(
        [command, "report", tmp_path, "--interactive", "--figure", "a.svg", "--output", tmp_path / "page.html"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: --figure is of the report without --interactive\n"


@pytest.mark.parametrize("command", ["train", "evaluate", "report"])
def test_the_help_lists_the_metrics(gptfluence: Callable[..., Done], command: str) -> None:
    out = gptfluence(command, "--help").out
    said = " ".join(out.replace("│", " ").split())
    assert f"There are {', '.join(METRICS)}, and metrics of a task's own." in said


REFUSED_EARLY = """
import json, sys
from simulator.cli import main

for words in json.load(sys.stdin):
    sys.argv = ["gptfluence", *words]
    try:
        main()
    except SystemExit as stopped:
        assert stopped.code == 1, words
slow = {"torch", "transformers", "sentence_transformers", "datasets", "scipy", "plotly"} & sys.modules.keys()
assert not slow, slow
"""


def test_wrong_words_are_refused_before_slow_libraries_are_imported(dataset: Path, tmp_path: Path) -> None:
    train = ["train", str(dataset), "--config", "mini_sentiment_nano", "--output", "M"]
    nowhere = "nowhere: no such folder with a simulator; train one with gptfluence train, or give a Hub id"
    cases = {
        "mini_sentiment_nano has no metric 'bleu'; it has: loss, accuracy": [*train, "--metric", "bleu"],
        "dynamics='slow' must be one of auto, memory, markov, tangent": [*train, "--dynamics", "slow"],
        "unknown encoder 'bert'; known encoders: sentence, causal_lm, gradient, label, index": [
            *train, "--encoder", "bert",
        ],
        f"{dataset} has no runs of config 'other_nano'": ["influence", str(dataset), "--config", "other_nano"],
        f"{dataset} has several configs: say which with --config": ["influence", str(dataset), "--metric", "bleu"],
        nowhere: ["influence", str(dataset), "--model", "nowhere"],
        f"{nowhere} ": ["evaluate", *train[1:4], "--models", "nowhere"],
        f"{nowhere}  ": ["simulate", "nowhere", "--dataset", str(dataset)],
        f"{nowhere}   ": ["push", "nowhere", "ada/own"],
        f"{tmp_path}: not a folder with a GPTfluence simulator (it has no config.json)": [
            "select", "--model", str(tmp_path), "--output", "S",
        ],
        "gone: no such dataset folder": ["report", "gone", "--config", "a_b", "--output", "page.html"],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", REFUSED_EARLY], input=json.dumps(list(cases.values())), capture_output=True, text=True,
        check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and not list(tmp_path.iterdir())
    for line, message in zip(done.stderr.splitlines(), cases, strict=True):
        assert line.startswith(f"error: {message.strip()}")


def test_the_names_of_dynamics_are_known_without_them() -> None:
    assert sorted(DYNAMICS) == sorted(kind_names())
