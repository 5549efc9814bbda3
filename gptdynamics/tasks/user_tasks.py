"""Tasks of a user's own, from Python or TOML files."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

from gptdynamics.configs import TEXT_TOKENIZERS
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.metrics import ACCURACY, METRICS
from gptdynamics.tasks.declared import read_declaration, task_class
from gptdynamics.tasks.task import HubSource, Task

# Worker processes inherit the environment.
VARIABLE = "GPTDYNAMICS_TASKS"
# Files and folders are named for tasks.
_LONGEST = 80
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*")


def add_task_file(path: str | os.PathLike[str]) -> None:
    """Add the tasks of a Python file, or the task of a TOML file, here and in processes started from now on.

    Raises:
        SettingsError: it has no subclass of `Task`, or does not describe a task, or cannot be used.
    """
    from gptdynamics.tasks.registry import task_names

    whole = str(Path(path).resolve())
    if os.pathsep in whole:
        raise SettingsError(f"{whole}: ${VARIABLE} has {os.pathsep!r} between files: rename this one or its folder")
    _tasks_of(whole)
    before = os.environ.get(VARIABLE, "")
    if whole in task_files():
        return
    os.environ[VARIABLE] = f"{before}{os.pathsep}{whole}" if before else whole
    try:
        task_names()
    except SettingsError:
        os.environ[VARIABLE] = before
        raise


def user_tasks() -> list[tuple[str, Task]]:
    """The tasks of all task files named by `$GPTDYNAMICS_TASKS`, each with its file."""
    return [(path, task) for path in task_files() for task in _tasks_of(path)]


def task_file_texts() -> list[tuple[str, str]]:
    """Name and text of every known task file, for machines that do not have them."""
    return [(Path(path).name, Path(path).read_text(encoding="utf-8")) for path in task_files()]


def use_task_files(texts: list[tuple[str, str]], folder: Path) -> None:
    """Add the tasks of these files (see `task_file_texts`), written to a folder, and forget all others."""
    os.environ.pop(VARIABLE, None)
    for number, (name, text) in enumerate(texts):
        # A folder for each file, because two may have the same name.
        path = folder / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        add_task_file(path)


def task_files() -> list[str]:
    """Paths of the known task files."""
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return list(dict.fromkeys(str(Path(path).resolve()) for path in named if path))


@cache
def _tasks_of(path: str) -> tuple[Task, ...]:
    if not Path(path).is_file():
        raise SettingsError(f"{path}: no such task file (--task-file, ${VARIABLE})")
    if Path(path).suffix == ".toml":
        return (_task_of_toml(Path(path)),)
    # Two files of the same name in different folders are two modules.
    name = f"gptdynamics_task_file_{hashlib.sha256(path.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path}: a task file is a Python file, with the ending .py, or TOML, with .toml")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        classes = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == name]
        kinds = [each for each in classes if issubclass(each, Task) and not each.__name__.startswith("_")]
        tasks = tuple(checked_task(each) for each in kinds)
        if not tasks:
            raise SettingsError("has no subclass of gptdynamics.tasks.Task")
    except SettingsError as error:
        sys.modules.pop(name, None)
        raise SettingsError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path}: cannot be imported: {type(error).__name__}: {reason}") from error
    return tasks


def _task_of_toml(path: Path) -> Task:
    try:
        return checked_task(task_class(read_declaration(path)))
    except GPTDynamicsError as error:
        raise SettingsError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def checked_task(kind: type[Task], kept: bool = False) -> Task:
    """An instance of a task class; raises SettingsError with its first problem.

    Metrics of what a dataset folder has `kept` of a task need no functions.
    """
    for problem in _problems(kind, kept):
        raise SettingsError(f"{kind.__name__}{problem}")
    return kind()


def _problems(kind: type[Task], kept: bool) -> Iterator[str]:
    """What is wrong with a task class; later checks need the earlier ones to pass."""
    for attribute in ("name", "fields"):
        value = getattr(kind, attribute, None)
        if value is None or (isinstance(value, str | dict) and not value):
            yield f" lacks {attribute}"
    if inspect.isabstract(kind):
        yield f" lacks {', '.join(sorted(kind.__abstractmethods__))}"
    if not isinstance(kind.name, str) or not _NAME.fullmatch(kind.name) or len(kind.name) > _LONGEST:
        allowed = f"letters, digits and, singly inside, _ . - only, and at most {_LONGEST} of them"
        yield f".name = {kind.name!r:.90} may have {allowed}"
    pairs = kind.fields.items() if isinstance(kind.fields, dict) else [("", None)]
    if not all(isinstance(name, str) and isinstance(each, type) for name, each in pairs):
        yield f".fields = {kind.fields!r} must name fields with their types, as {{'text': str}}"
    if kind.prompt is Task.prompt and not kind.plain:
        yield " lacks plain, the template of its prompt"
    if not isinstance(kind.plain, str):
        yield f".plain = {kind.plain!r} must be a str, the template of its prompt"
    for attribute in ("labels", "instructions"):
        values = getattr(kind, attribute)
        if not isinstance(values, tuple):
            yield f".{attribute} must be a tuple of str: write a comma after a single one"
        for text in values:
            if not isinstance(text, str) or not text.strip():
                yield f".{attribute}: {text!r} must be a text that is not empty"
    if kind.scenario not in ("finetune", "instruct"):
        yield f".scenario = {kind.scenario!r} must be 'finetune' or 'instruct'"
    if kind.scenario == "instruct" and not kind.instructions:
        yield " lacks instructions, the templates that scenario 'instruct' draws from"
    if kind.hub is not None:
        yield from _hub_problems(kind.hub)
    for text in (kind.plain, *kind.instructions):
        try:
            text.encode()
            list(Formatter().parse(text))
        except ValueError as error:
            yield f": template {text!r}: {error}; write a brace of the text twice"
    if kind.text_tokenizer not in (None, *TEXT_TOKENIZERS):
        yield f".text_tokenizer = {kind.text_tokenizer!r} must be one of {', '.join(TEXT_TOKENIZERS)}, or None"
    if len(set(kind.labels)) == 1 or len(set(kind.labels)) < len(kind.labels):
        yield ".labels must be different from each other, and at least two"
    yield from (f".metrics{problem}" for problem in _metric_problems(kind(), kept))


def _metric_problems(task: Task, kept: bool) -> Iterator[str]:
    if not isinstance(task.metrics, tuple | list):
        yield " must be a tuple of names and metrics: write a comma after a single one"
    try:
        metrics = task.followed_metrics
    except SettingsError as error:
        yield f": {error}"
        return
    for metric in metrics:
        own = METRICS.get(metric.name) != metric
        if own and ((metric.score is None and not kept) or not metric.needs_text):
            yield f": {metric.name} needs score, a function of a text and its references, and needs_text"
        if metric.needs_text and not task.generates:
            yield f": {metric.name} is of generated text, and a task with labels has none"
        if metric == ACCURACY and task.generates:
            yield ": accuracy needs labels, and the task has none"


def _hub_problems(hub: object) -> Iterator[str]:
    if not isinstance(hub, HubSource):
        yield f".hub = {hub!r} must be a gptdynamics.tasks.HubSource"
    for name in ("dataset", "licence", "revision"):
        if not isinstance(getattr(hub, name), str) or not getattr(hub, name):
            yield f".hub: {name} = {getattr(hub, name)!r} must be a text"
    for name in ("splits", "files"):
        value = getattr(hub, name)
        complete = isinstance(value, dict) and {"train", "eval"} <= value.keys()
        if not complete and not (name == "files" and value is None):
            yield f".hub: {name} = {value!r} must say what is train and what is eval"
