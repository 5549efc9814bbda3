"""The command that repeats a use case is made from its settings, and parsing it gives the same settings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.console import run_app
from simulator.cli import app
from simulator.commands.repeat import repeating_command
from simulator.use_cases.mislabel import MislabelSettings
from simulator.use_cases.select import SelectSettings
from simulator.use_cases.validate import ValidateSettings

DEFAULTS = [
    ("mislabel", MislabelSettings("sst2", Path("out")), ["task"]),
    ("select", SelectSettings("model", "data", Path("out")), ["model"]),
    ("validate", ValidateSettings("model", "data", Path("out")), ["model"]),
]
OTHERS = [
    (
        "mislabel",
        MislabelSettings("sst2", Path("my out"), Path("rows; rm"), "org/model", 64, 0.4, 7, 3e-4, 8, 2, 6, 3, 100, 2),
        ["task"],
    ),
    (
        "select",
        SelectSettings("-model", "a'b", Path("out put"), 5, (3, 17), 2, 4, 1, "rte_nano", "accuracy"),
        ["model"],
    ),
    (
        "validate",
        ValidateSettings("org/model", "data set", Path("o"), "0004", 3, 0.25, 7, 5, 9, 2, "rte_nano", "loss"),
        ["model"],
    ),
]


class Stop(Exception):
    """Enough is known."""


@pytest.mark.parametrize(("name", "settings", "arguments"), DEFAULTS + OTHERS)
def test_parsing_the_command_gives_the_same_settings(
    name: str, settings: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def take(found: Any, *_: object) -> None:
        given.append(found)
        raise Stop

    module = f"simulator.use_cases.{name}"
    monkeypatch.setattr(f"{module}.{'find_mislabels' if name == 'mislabel' else name}", take)
    command = repeating_command(name, settings, arguments)
    words = shlex.split(command)
    assert words[:2] == ["gptfluence", name]
    with pytest.raises(Stop):
        run_app(app, words[1:], "gptfluence")
    assert given == [settings]


def test_options_that_are_no_settings_are_repeated_too() -> None:
    settings = MislabelSettings("sst2", Path("out"))
    command = repeating_command(
        "mislabel", settings, ["task"], {"by": "memory_left_out", "task_file": [Path("a.py"), Path("b.py")]}
    )
    assert "--by memory_left_out --task-file a.py --task-file b.py" in command
