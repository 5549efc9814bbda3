"""The command that repeats something is made from its settings, and parsing it gives the same settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.commands.from_settings import add_command, new_app
from gptdynamics.commands.running import run_app
from gptdynamics.options import command_line
from gptdynamics.settings.collect import CollectCommand
from gptdynamics.settings.datasets import ExportSettings, ImportSettings, PlanSettings, PushBaseSettings, PushSettings
from gptdynamics.tasks import add_task_file
from gptdynamics.tasks.user_tasks import VARIABLE
from simulator.cli import spread_models
from simulator.settings.evaluate import EvaluateSettings, ReportSettings
from simulator.settings.experiment import ExperimentSettings
from simulator.settings.push import PushModelSettings
from simulator.settings.train import TrainCommand
from simulator.settings.use_cases import (
    InfluenceSettings,
    MislabelSettings,
    SelectSettings,
    SimulateSettings,
    ValidateSettings,
)


@pytest.fixture(autouse=True, scope="module")
def datasets_of_any_name() -> Iterator[None]:
    """No dataset or simulator that is named here is there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("check_source", "check_simulator_place"):
            monkeypatch.setattr(f"simulator.settings.of_dataset.{name}", lambda *given: None)
        yield


SETTINGS: list[Any] = [
    MislabelSettings("sst2", Path("out")),
    MislabelSettings("d", Path("out"), config="tickets_nano"),
    SelectSettings("data", "model", output=Path("out")),
    ValidateSettings(None, "model", output=Path("out")),
    MislabelSettings(
        "sst2", Path("my out"), Path("rows; rm"), "org/model", 64, 0.4, 7, 3e-4, 8, 2, 6, 3, 100, 2, "memory_left_out"
    ),
    SelectSettings("a'b", "-model", 5, (3, 17), 2, 4, 1, "rte_nano", "accuracy", output=Path("out put")),
    ValidateSettings(
        "data set", "org/model", "0004", 3, 0.25, 7, 5, 9, 2, "rte_nano", "loss", "cuda:1", output=Path("o")
    ),
    InfluenceSettings("--dataset", "--model", "0004", (3,), 2, "a_b", "loss"),
    SimulateSettings("m", None, None, Path("-c.json"), 0.9),
    SimulateSettings("m", "d", "0004"),
    EvaluateSettings("d", ("a_b", "c_d"), ("loss", "bleu"), ("-m", "a b", "c,d"), ("grad_dot",), "test_unseen", 0.5),
    ReportSettings("--", Path("page.html"), None, models=("m",), interactive=True, no_texts=True),
    ReportSettings("d", Path("page.html"), "a_b", figure=Path("a.svg")),
    TrainCommand(
        dataset="d", config=("a_b", "c_d"), output=Path("-o"), dynamics="markov", bands=False, report_to=("x",)
    ),
    ExperimentSettings("all", "-d", ("a_b", "c_d"), output=Path("o")),
    PushModelSettings(Path("m"), "o/n", True, Path("e.json"), "o/d", "o/s", True),
    CollectCommand(Path("o"), ("a_b", "c_d"), runs=3, run={"seed": 3, "gradients": "all", "lora_dropout": 0.25}),
    CollectCommand(Path("o"), ("a_b",), executor="ray", ray={"address": "-a:1", "cpus": 2.0}, no_texts=True),
    CollectCommand(Path("o"), plan="nano", push_to="o/d", data=Path("rows"), workers=2),
    PlanSettings("nano", True, "cpu"),
    ImportSettings("release", Path("o"), True),
    ExportSettings("d", Path("o"), ("a_b",)),
    PushSettings(dataset=Path("d"), repo="o/n", private=True, tag="v 1", dry_run=True),
    PushBaseSettings("o/n", Path("m"), True),
]


@cache
def command_line_of(kind: type) -> tuple[typer.core.TyperGroup, list[Any]]:
    """A command line with a command of these settings, and what it has received. Made once: it takes half a second."""
    received: list[Any] = []

    def command(settings: Any) -> None:
        received.append(settings)

    command.__annotations__["settings"] = kind
    app = new_app("A command.")
    add_command(app, command)
    app.command()(other)
    return typer.main.get_command(app), received


def parsed(settings: Any, words: list[str]) -> Any:
    """The settings that a command receives whose words these are."""
    app, received = command_line_of(type(settings))
    received.clear()
    with pytest.raises(SystemExit) as stop:
        run_app(app, spread_models(words), "gptfluence")
    assert not stop.value.code
    return received[0]


def other() -> None:
    """Another command: of a single one, typer would leave out the name."""


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: type(each).__name__)
def test_parsing_the_command_gives_the_same_settings(settings: Any) -> None:
    words = shlex.split(command_line("gptfluence", "command", settings))
    assert words[:2] == ["gptfluence", "command"]
    assert parsed(settings, words[1:]) == settings


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1) | st.sampled_from(
    [
        "-",
        "--",
        "-m",
        "--models",
        "--model=x",
        "a b",
        "'",
        '"',
        'a\'b "c"',
        "$HOME",
        "`x`",
        "=",
        "-- x",
        "#",
        "\\",
        "\n",
    ]
)
PATHS = WORDS.map(Path)


@given(dataset=WORDS, models=st.lists(WORDS).map(tuple), split=st.sampled_from(["test", "test_unseen"]))
def test_models_of_any_name_come_back(dataset: str, models: tuple[str, ...], split: Any) -> None:
    settings = EvaluateSettings(dataset, "a_b", models=models, split=split)
    assert parsed(settings, shlex.split(command_line("gptfluence", "command", settings))[1:]) == settings


@given(model=WORDS, dataset=WORDS, output=PATHS, run=WORDS | st.none(), share=st.floats(0.01, 0.99))
def test_folders_and_runs_of_any_name_come_back(
    model: str, dataset: str, output: Path, run: str | None, share: float
) -> None:
    settings = ValidateSettings(dataset, model, run, share=share, output=output)
    assert parsed(settings, shlex.split(command_line("gptfluence", "command", settings))[1:]) == settings


@given(ids=st.lists(st.integers(-5, 10**6)).map(tuple), count=st.integers(1, 1000))
def test_lists_of_ids_come_back(ids: tuple[int, ...], count: int) -> None:
    settings = SelectSettings("d", "m", count, ids, output=Path("o"))
    assert parsed(settings, shlex.split(command_line("gptfluence", "command", settings))[1:]) == settings


def test_task_files_are_repeated_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for number, path in enumerate(files):
        path.write_text(
            "from gptdynamics.tasks import Task\n"
            f"class Mine(Task):\n    name = 'mine{number}'\n    fields = {{'text': str}}\n    plain = '{{text}}'\n"
            "    labels = ('a', 'b')\n    def target(self, row): return row['text']\n"
        )
        add_task_file(path)
    settings = MislabelSettings("sst2", Path("out"), by="memory_left_out")
    command = command_line("gptfluence", "mislabel", settings)
    assert command.endswith(f"--by memory_left_out --device auto --task-file {files[0]} --task-file {files[1]}")
