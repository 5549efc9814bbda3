"""Tasks defined by the user, in Python or TOML files."""

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
    """Add the tasks of a Python file, or the task of a TOML file, here and in processes that are started later.

    Raises:
        SettingsError: the file has no subclass of `Task`, does not describe a valid task, or cannot be used.
    """
    from gptdynamics.tasks.registry import task_names

    resolved = str(Path(path).resolve())
    if os.pathsep in resolved:
        raise SettingsError(
            f"{resolved}: a task file's path cannot have {os.pathsep!r}, which separates the files in ${VARIABLE}. "
            "Rename the file or its folder"
        )
    _tasks_of(resolved)
    before = os.environ.get(VARIABLE, "")
    if resolved in task_files():
        return
    os.environ[VARIABLE] = f"{before}{os.pathsep}{resolved}" if before else resolved
    try:
        task_names()
    except SettingsError:
        os.environ[VARIABLE] = before
        raise


def user_tasks() -> list[tuple[str, Task]]:
    """The tasks of all task files named by `$GPTDYNAMICS_TASKS`, each with its file."""
    return [(path, task) for path in task_files() for task in _tasks_of(path)]


def task_file_texts() -> list[tuple[str, str]]:
    """Name and text of every task file in use, for machines that do not have them."""
    return [(Path(path).name, Path(path).read_text(encoding="utf-8")) for path in task_files()]


def use_task_files(texts: list[tuple[str, str]], folder: Path) -> None:
    """Write these task files (see `task_file_texts`) to a folder and use them, and no others."""
    os.environ.pop(VARIABLE, None)
    for number, (name, text) in enumerate(texts):
        # A folder for each file, because two may have the same name.
        path = folder / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        add_task_file(path)


def task_files() -> list[str]:
    """Paths of the task files in use."""
    paths = os.environ.get(VARIABLE, "").split(os.pathsep)
    return list(dict.fromkeys(str(Path(path).resolve()) for path in paths if path))


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
        raise SettingsError(f"{path}: a task file must be a Python file (.py) or a TOML file (.toml)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        classes = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == name]
        kinds = [value for value in classes if issubclass(value, Task) and not value.__name__.startswith("_")]
        tasks = tuple(checked_task(value) for value in kinds)
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


def checked_task(kind: type[Task], from_dataset: bool = False) -> Task:
    """An instance of a task class; raises SettingsError with its first problem.

    Metrics of a task that comes `from_dataset` need no functions.
    """
    for problem in _problems(kind, from_dataset):
        raise SettingsError(f"{kind.__name__}{problem}")
    return kind()


def _problems(kind: type[Task], from_dataset: bool) -> Iterator[str]:
    """The problems of a task class; later checks rely on the earlier ones."""
    for attribute in ("name", "fields"):
        value = getattr(kind, attribute, None)
        if value is None or (isinstance(value, str | dict) and not value):
            yield f" lacks {attribute}"
    if inspect.isabstract(kind):
        yield f" lacks {', '.join(sorted(kind.__abstractmethods__))}"
    if not isinstance(kind.name, str) or not _NAME.fullmatch(kind.name) or len(kind.name) > _LONGEST:
        allowed = f"letters, digits and . - only, _ singly and inside, and at most {_LONGEST} characters"
        yield f".name = {kind.name!r:.90} may have {allowed}"
    pairs = kind.fields.items() if isinstance(kind.fields, dict) else [("", None)]
    if not all(isinstance(name, str) and isinstance(field_type, type) for name, field_type in pairs):
        yield f".fields = {kind.fields!r} must name fields with their types, as {{'text': str}}"
    if kind.prompt is Task.prompt and not kind.plain:
        yield " lacks plain, the template of its prompt"
    if not isinstance(kind.plain, str):
        yield f".plain = {kind.plain!r} must be a str, the template of its prompt"
    for attribute in ("labels", "instructions"):
        values = getattr(kind, attribute)
        if not isinstance(values, tuple):
            yield f'.{attribute} must be a tuple of str; a tuple of one is written ("text",)'
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
            yield f": template {text!r}: {error}; write literal braces as {{{{ and }}}}"
    if kind.text_tokenizer not in (None, *TEXT_TOKENIZERS):
        yield f".text_tokenizer = {kind.text_tokenizer!r} must be one of {', '.join(TEXT_TOKENIZERS)}, or None"
    if len(set(kind.labels)) == 1 or len(set(kind.labels)) < len(kind.labels):
        yield ".labels must be different from each other, and at least two; leave them out for a text task"
    yield from (f".metrics{problem}" for problem in _metric_problems(kind(), from_dataset))


def _metric_problems(task: Task, from_dataset: bool) -> Iterator[str]:
    if not isinstance(task.metrics, tuple | list):
        yield " must be a tuple of names and metrics: write a comma after a single one"
    try:
        metrics = task.followed_metrics
    except SettingsError as error:
        yield f": {error}"
        return
    for metric in metrics:
        user_defined = METRICS.get(metric.name) != metric
        if user_defined and ((metric.score is None and not from_dataset) or not metric.needs_text):
            yield f": {metric.name} needs score, a function of a text and its references, and needs_text=True"
        if metric.needs_text and not task.generates:
            yield f": {metric.name} is measured on generated text, and a task with labels has none"
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
            yield f".hub: {name} = {value!r} must be a dict with the keys 'train' and 'eval'"
