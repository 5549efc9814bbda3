"""Both command lines offer what the settings dataclasses declare, with their help; TOML files take the same names."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer

import gptdynamics.cli
import simulator.cli
from gptdynamics.commands.from_settings import add_command, new_app
from gptdynamics.commands.running import run_app
from gptdynamics.configs import RunSettings
from gptdynamics.options import ChangesOf, CommandLine
from gptdynamics.settings.collect import CollectCommand, RaySettings
from gptdynamics.settings.kernels import KernelSettings
from simulator.settings.evaluate import EvaluateSettings

COMMANDS = {
    (program, function.__name__.rstrip("_").replace("_", "-")): function
    for program, module in (("gptdynamics", gptdynamics.cli), ("gptfluence", simulator.cli))
    for function in module.COMMANDS
}
APPS = {"gptdynamics": gptdynamics.cli.app, "gptfluence": simulator.cli.app}
# Of every command, or of those that print figures or can be tried out.
GENERAL = {"--settings", "--task-file", "--json", "--dry-run", "--verbose"}


def settings_of(function: Callable[..., None]) -> Any:
    first = next(iter(inspect.signature(function).parameters))
    return get_type_hints(function)[first]


def shown(program: str, command: str) -> list[Any]:
    """The arguments and options that `--help` shows."""
    parameters = typer.main.get_command(APPS[program]).commands[command].params
    return [each for each in parameters if not each.hidden]


def test_there_are_no_other_commands() -> None:
    for program, app in APPS.items():
        names = typer.main.get_command(app).commands
        assert {(program, name) for name in names} == {each for each in COMMANDS if each[0] == program}


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_options_are_the_fields_of_the_settings(program: str, command: str) -> None:
    settings = settings_of(COMMANDS[program, command])
    expected = {each.name for each in fields(settings)}
    if settings is CollectCommand:
        expected -= {"run", "ray", "kernel"}
        expected |= {f"kernel_{each.name}" for each in fields(KernelSettings)}
        expected |= {each.name for each in fields(RunSettings)} - {"config"}
        expected |= {f"ray_{each.name}" for each in fields(RaySettings)}
    general = GENERAL - {f"--{name.replace('_', '-')}" for name in expected}
    options = [each for each in shown(program, command) if each.opts[0] not in general]
    names = [each.opts[0].removeprefix("--").removeprefix("argument_").replace("-", "_") for each in options]
    assert sorted(names) == sorted(expected)


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_option_is_documented(program: str, command: str) -> None:
    for each in shown(program, command):
        assert each.help, each.opts


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_the_dataset_is_the_first_argument(program: str, command: str) -> None:
    arguments = [
        each.name.removeprefix("argument_") for each in shown(program, command) if not each.opts[0].startswith("-")
    ]
    if "dataset" in {each.name for each in fields(settings_of(COMMANDS[program, command]))} and command != "push":
        assert arguments[-1 if command == "experiment" else 0] == "dataset"


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_output_has_the_name_of_earlier_versions_too(program: str, command: str) -> None:
    options = {flag for each in typer.main.get_command(APPS[program]).commands[command].params for flag in each.opts}
    assert ("--output" in options) == ("--out" in options)


@dataclass(frozen=True)
class Inner:
    """Settings of something else.

    Attributes:
        depth: how [deep] it is.
        width: of it.
    """

    depth: int = 4
    width: float = 0.5


@dataclass(frozen=True)
class Outer:
    """Settings.

    Attributes:
        dataset: what is read, such as
            [[3, 17], ...].
        output: where to.
        names, more: of [bold]things[/bold].
        seed: of chance.
        flag: whether.
        inner: the rest.
    """

    dataset: Annotated[str, CommandLine(positional=True)]
    output: Annotated[Path, CommandLine(aliases=("out",))]
    names: tuple[str, ...] = ()
    more: Annotated[tuple[int, ...], CommandLine(commas=True)] = (1, 2)
    seed: int | None = None
    flag: bool = False
    inner: Annotated[Any, ChangesOf(Inner, prefix="inner_")] = field(default_factory=dict)


@pytest.fixture
def outer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Run a command that takes `Outer`: its status, what it received, and what was printed."""

    def run(*words: object) -> tuple[int, Any, str]:
        received: list[Outer] = []

        def read(settings: Outer) -> None:
            """Read [[3, 17]] and [bold]more[/bold]."""
            received.append(settings)

        read.__annotations__["settings"] = Outer
        app = new_app("Reads.")
        add_command(app, read)
        app.command("other")(lambda: None)
        with pytest.raises(SystemExit) as stop:
            run_app(app, ["read", *map(str, words)], "reader")
        printed = capsys.readouterr()
        return int(stop.value.code or 0), received[0] if received else None, printed.out + printed.err

    return run


def test_help_is_the_docstring_with_brackets_as_they_are(outer: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    _, _, text = outer("--help")
    for each in ("Read [[3, 17]] and [bold]more[/bold].", "What is read, such as [[3, 17], ...].", "How [deep] it is."):
        assert each in text
    assert text.count("Of [bold]things[/bold].") == 2
    assert "[required]" in text and "[default: 1, 2]" in text and "[default: (4)]" in text
    assert "--out " not in text and "--dataset" not in text and "--no-flag" not in text


def test_a_toml_file_takes_the_same_names_and_the_line_wins(outer: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        'dataset = "d"\noutput = "o"\nnames = ["a", "b"]\nmore = [3]\nseed = 7\nflag = true\ninner_width = 2\n'
    )
    assert outer("--settings", path)[:2] == (0, Outer("d", Path("o"), ("a", "b"), (3,), 7, True, {"width": 2.0}))
    words = ("--seed", 8, "--no-flag", "--out", "p", "--inner-depth", 1, "e", "--more", "4,5", "--more", 6)
    expected = Outer("e", Path("p"), ("a", "b"), (4, 5, 6), 8, False, {"width": 2.0, "depth": 1})
    assert outer("--settings", path, *words)[:2] == (0, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sed = 7", "there is no setting 'sed'. There are: dataset, output, names, more, seed, flag, inner_depth"),
        ("inner = 3", "there is no setting 'inner'"),
        ("seed = '7'", "seed = '7' must be a whole number"),
        ("seed = 7.5", "seed = 7.5 must be a whole number"),
        ("seed = true", "seed = True must be a whole number"),
        ("seed = [7]", "seed = [7] must be a whole number"),
        ("flag = 1", "flag = 1 must be true or false"),
        ("names = [1]", "names = [1] must be a text, or a list of such"),
        ("more = ['1']", "more = ['1'] must be a whole number, or a list of such"),
        ("inner_width = 'x'", "inner_width = 'x' must be a number"),
        ("output = 3", "output = 3 must be a path"),
        ("[seed]\na = 1", "seed = {'a': 1} must be a whole number"),
        ("seed =", "not a TOML file"),
    ],
)
def test_a_toml_file_that_does_not_fit_is_one_line(
    outer: Callable[..., Any], tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(content)
    status, received, text = outer("d", "--output", "o", "--settings", path)
    assert (status, received, text.count("\n")) == (1, None, 1)
    assert text.startswith(f"error: {path}: ") and message in text


def test_a_toml_file_that_is_not_there_is_one_line(outer: Callable[..., Any], tmp_path: Path) -> None:
    status, _, text = outer("d", "--output", "o", "--settings", tmp_path / "none.toml")
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith(f"error: {tmp_path / 'none.toml'}: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing argument 'DATASET'"),
        (("d",), "Missing option '--output'"),
        (("d", "--output", "o", "e"), "unexpected extra argument"),
        (("d", "--dataset", "e", "--output", "o"), "unexpected extra argument"),
        (("d", "--output", "o", "--seed", "x"), "--seed"),
        (("d", "--output", "o", "--sed", "1"), "--sed"),
    ],
)
def test_a_command_line_that_does_not_fit_is_an_error_of_usage(
    outer: Callable[..., Any], words: tuple[str, ...], message: str
) -> None:
    status, received, text = outer(*words)
    assert (status, received) == (2, None)
    assert message in " ".join(text.replace("│", " ").split())


def test_a_list_with_something_else_than_numbers_is_one_line(outer: Callable[..., Any]) -> None:
    assert outer("d", "--output", "o", "--more", "1,x") == (1, None, "error: '1,x' is not a list of ids such as 3,17\n")


@pytest.mark.parametrize(
    "words",
    [
        ["m", "--dataset", "d"],  # of earlier versions
        ["d", "--model", "m"],
        ["--model", "m", "d"],
        ["--model", "m", "--dataset", "d"],
        ["d", "m"],
    ],
)
@pytest.mark.parametrize("command", ["simulate", "influence", "select", "validate"])
def test_the_model_was_the_argument_in_earlier_versions(
    command: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("d", "m"):
        Path(folder).mkdir()
    Path("m/config.json").write_text("{}", encoding="utf-8")
    function = COMMANDS["gptfluence", command]
    received: list[Any] = []
    replaced = lambda settings: received.append(settings)  # noqa: E731
    replaced.__annotations__, replaced.__name__ = {"settings": settings_of(function)}, command
    app = new_app("Takes settings.")
    add_command(app, replaced)
    app.command("other")(lambda: None)
    output = [] if command in ("simulate", "influence") else ["--output", "o"]
    with pytest.raises(SystemExit) as stop:
        run_app(app, [command, *words, *output], "gptfluence")
    assert not stop.value.code
    assert (received[0].model, received[0].dataset) == ("m", "d")


def test_settings_of_the_line_reach_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []
    monkeypatch.setattr("simulator.training.parts.groups_of", lambda *given: received.append(given) or [])
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    (tmp_path / "s.toml").write_text('dataset = "d"\nconfig = "a_b"\nmetric = ["loss", "bleu"]\n')
    with pytest.raises(SystemExit) as stop:
        run_app(APPS["gptfluence"], ["evaluate", "--settings", str(tmp_path / "s.toml"), "--config", "c_d,e_f"])
    assert not stop.value.code
    assert received == [("d", ("c_d", "e_f"), ("loss", "bleu"))]
    assert EvaluateSettings("d", "a_b").configs == ("a_b",)


@pytest.mark.parametrize("module", ["gptdynamics", "simulator"])
def test_modules_are_commands_that_say_their_version_and_help(module: str) -> None:
    from gptdynamics import __version__

    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", module, *words], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    assert run("--version") == f"gptdynamics {__version__}\n"
    assert "--version" in run("--help")
