"""What `import gptdynamics`, `import simulator` and `import gptfluence` offer."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gptdynamics
import gptfluence
import simulator
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.keywords import settings_of
from gptdynamics.options import options_of
from gptdynamics.settings.collect import CollectCommand
from gptdynamics.settings.datasets import PushSettings
from simulator.settings.evaluate import EvaluateSettings, ReportSettings
from simulator.settings.train import TrainCommand
from simulator.settings.use_cases import InfluenceSettings, MislabelSettings, SelectSettings, ValidateSettings

ROOT = Path(__file__).parents[1]
PACKAGES = (gptdynamics, simulator, gptfluence)
SLOW_LIBRARIES = ("torch", "transformers", "datasets", "numpy", "pyarrow", "huggingface_hub", "plotly", "pandas")
SETTINGS = {
    "collect": CollectCommand,
    "push": PushSettings,
    "train": TrainCommand,
    "evaluate": EvaluateSettings,
    "report": ReportSettings,
    "influence": InfluenceSettings,
    "mislabel": MislabelSettings,
    "select": SelectSettings,
    "validate": ValidateSettings,
}
# Public functions and classes with an example; those of the recorder have theirs in docs/how-to/record-training.md.
WITH_EXAMPLES = (
    *(f"gptdynamics.{name}" for name in ("load", "read_dynamics", "verify", "push", "collect", "Plan", "Task")),
    *(f"simulator.{name}" for name in ("train", "evaluate", "report", "influence", "what_if")),
    "simulator.GPTfluenceSimulator",
)
SLOW_EXAMPLES = tuple(f"simulator.{name}" for name in ("mislabel", "select", "validate"))
# They take seconds, and what they call is tested beside them.
SLOWER_EXAMPLES = ("gptdynamics.verify", "simulator.evaluate")


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd="/", check=False
    )


def test_importing_loads_no_slow_library() -> None:
    code = """
import json, sys
import gptdynamics, simulator, gptfluence
packages = (gptdynamics, simulator, gptfluence)
missing = [name for package in packages for name in package.__all__ if name not in dir(package)]
print(json.dumps([sorted(sys.modules), missing]))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    loaded, missing = json.loads(done.stdout)
    assert missing == []
    assert [name for name in SLOW_LIBRARIES if name in loaded] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_can_be_imported(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_gptfluence_has_the_names_of_simulator() -> None:
    assert gptfluence.__all__ == simulator.__all__
    assert all(getattr(gptfluence, name) is getattr(simulator, name) for name in simulator.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_see_the_names_where_they_are_defined(package: Any) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    imports = {
        alias.name: statement.module
        for statement in ast.walk(tree)
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    for name in set(package.__all__) - {"__version__"}:
        assert getattr(importlib.import_module(str(imports[name])), name) is getattr(package, name)


@pytest.mark.parametrize("name", SETTINGS)
def test_keywords_are_the_options_of_the_command(name: str) -> None:
    function = getattr(gptdynamics, name, None) or getattr(simulator, name)
    parameters = inspect.signature(function).parameters
    own = {option.name: option for option in options_of(SETTINGS[name])}
    assert own.keys() <= parameters.keys()
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values())
    assert all(f"{option}: " in str(function.__doc__) for option in own)


def test_keywords_take_what_a_notebook_has() -> None:
    asked = settings_of(
        EvaluateSettings, dataset=Path("a/b"), config="rte_nano", models=["m"], baselines="mean_curve", metric=["loss"]
    )
    assert asked == EvaluateSettings("a/b", "rte_nano", ("loss",), models=("m",), baselines=("mean_curve",))
    collected = settings_of(
        CollectCommand, output="out", configs="rte_nano", learning_rate=0.5, ray_cpus=2, executor="ray"
    )
    assert (collected.output, collected.configs) == (Path("out"), ("rte_nano",))
    assert (collected.run, collected.ray) == ({"learning_rate": 0.5}, {"cpus": 2})
    with pytest.raises(SettingsError, match=r"colour: there is no such setting\. There are: dataset, config, "):
        settings_of(EvaluateSettings, dataset="a", config="b", colour="red")
    with pytest.raises(SettingsError, match=r"config is missing: <task>_<size>, e\.g\. rte_nano"):
        settings_of(EvaluateSettings, dataset="a")
    with pytest.raises(SettingsError, match="is no simulator"):
        simulator.evaluate("gptdynamics", "rte_nano", models=[3])  # type: ignore[list-item]


def test_a_training_shows_itself_and_is_saved_where_a_folder_is_given(tmp_path: Path) -> None:
    given = {"dataset": "gptdynamics", "config": "mini_sentiment_nano", "encoder": "label", "bands": False}
    trained = simulator.train(**given, output=tmp_path / "model")
    (fitted,) = trained.fitted
    title, _, row = repr(trained).splitlines()
    assert title.startswith("simulator (memory, label vectors), fitted in ")
    assert row.split() == ["mini_sentiment_nano,", "loss", f"{fitted.error:.4g}", str(len(fitted.tried))]
    assert f"<td>{fitted.error:.4g}</td>" in trained._repr_html_()
    assert len(trained.to_pandas()) == len(fitted.tried)
    loaded = simulator.GPTfluenceSimulator.from_pretrained(tmp_path / "model")
    curriculum = [[0, 1, 2, 3]] * 96
    assert (loaded.simulate(curriculum) == trained.model.simulate(curriculum)).all()
    by_folder = simulator.influence("gptdynamics", model=tmp_path / "model", output=tmp_path / "page.html")
    by_object = simulator.influence("gptdynamics", "mini_sentiment_nano", model=trained.model)
    assert (by_folder.final == by_object.final).all() and (tmp_path / "page.html").is_file()


def test_simulators_in_memory_have_names_of_their_own() -> None:
    first, second = (
        simulator.train("gptdynamics", "mini_sentiment_nano", encoder="label", bands=False, seed=seed).model
        for seed in (1, 2)
    )
    found = simulator.evaluate("gptdynamics", "mini_sentiment_nano", models=[first, second], baselines=["mean_curve"])
    names = [row.method for row in found.rows]
    assert names[-2:] == ["memory_label (in memory 1)", "memory_label (in memory 2)"]
    assert set(found.predictions) == set(names)
    assert "<td>mean_curve</td>" in found._repr_html_() and "mean_curve" in repr(found)


def _examples(name: str, whole: bool) -> doctest.DocTest:
    """The examples of a public name; `whole`: those that take minutes, too."""
    package, _, short = name.partition(".")
    thing = getattr(importlib.import_module(package), short)
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", {}, name, None, 0)
    assert found.examples
    for example in found.examples:
        if whole:
            example.options.pop(doctest.SKIP, None)
    return found


@pytest.fixture
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield


def _run_examples(name: str, whole: bool = False) -> None:
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(
        _examples(name, whole), out=said.append
    )
    assert result.failed == 0, "".join(said)
    assert result.attempted


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=pytest.mark.slow) if each in SLOWER_EXAMPLES else each
        for each in (*WITH_EXAMPLES, *SLOW_EXAMPLES)
    ],
)
def test_examples_in_docstrings_run(name: str, own_caches: None) -> None:
    _run_examples(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_EXAMPLES)
def test_examples_that_train_for_half_a_minute_run(name: str, own_caches: None) -> None:
    _run_examples(name, whole=True)


def test_only_these_examples_leave_something_out() -> None:
    for name in WITH_EXAMPLES:
        assert not any(example.options.get(doctest.SKIP) for example in _examples(name, whole=False).examples)


@pytest.mark.parametrize("file", ["simulator/__init__.py", "simulator.py"])
def test_another_package_called_simulator_is_told(file: str, tmp_path: Path) -> None:
    other = tmp_path / file
    other.parent.mkdir(exist_ok=True)
    other.write_text("raise RuntimeError('imported')")
    done = run("import gptfluence", tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert f"gptfluence needs its package 'simulator': Python finds another one, {other}. Rename or uninstall" in last
    caught = run(
        "from gptdynamics import GPTDynamicsError\ntry:\n import gptfluence\nexcept ImportError as error:\n"
        " print(isinstance(error, GPTDynamicsError))",
        tmp_path,
    )
    assert caught.stdout.strip() == "True"
    # Behind ours it does no harm.
    assert run("import gptfluence; print(gptfluence.train.__name__)", ROOT, tmp_path).stdout.strip() == "train"


def test_both_packages_are_typed_and_everything_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    assert "gptfluence" in setuptools["py-modules"]
    for package in ("gptdynamics", "simulator"):
        assert (ROOT / package / "py.typed").is_file() and "py.typed" in setuptools["package-data"][package]
    # `datasets` would take it for a loading script, and refuse the whole folder.
    assert not (ROOT / "gptdynamics" / "gptdynamics.py").exists()


def test_the_shadowing_error_is_one_of_ours() -> None:
    assert issubclass(gptfluence.ShadowedPackageError, GPTDynamicsError)
