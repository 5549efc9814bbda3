"""Tasks that are declared in a few lines of TOML, by a user or by a dataset folder, instead of programmed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

from gptdynamics.configs import value_differences
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.metrics import METRICS, Metric
from gptdynamics.parsing import parse_toml, read_bytes
from gptdynamics.tasks.task import Row, Task

# The keys that a file may have, with the class attributes that they become.
_TEXTS = {"prompt": "plain", "target": "target_template", "references": "references_field"} | {
    name: name for name in ("name", "scenario", "text_tokenizer")
}
_LISTS = ("labels", "instructions")


class _Declared(Task):
    """A task of which only labels and metrics are stored: its rows are examples already."""

    fields: ClassVar[dict[str, type]] = {"prompt": str, "target": str}
    plain = "{prompt}"

    def target(self, row: Row) -> str:
        return str(row["target"])

    def example(
        self, row: Row, index: int, where: str, source: Mapping[str, str], template: int | None = None
    ) -> Example:
        raise DataError(
            f"{where}: the dataset stores the labels and metrics of task {self.name}, but not the Python code that "
            "makes examples of rows. Name the task's file with --task-file"
        )


class _Templated(Task):
    """Prompt and target are templates over the row's texts."""

    target_template: ClassVar[str]
    references_field: ClassVar[str | None] = None

    def target(self, row: Row) -> str:
        return self.target_template.format_map(self.slots(row))

    def references(self, row: Row) -> Sequence[str]:
        return super().references(row) if self.references_field is None else list(row[self.references_field])


def declared_task(name: str, labels: Iterable[str]) -> Task:
    """A task given by its labels only, and not registered; without labels, text is generated and scored.

    Raises SettingsError if the labels are not texts, are not all different, or there is only one.
    """
    values: tuple[Any, ...] = tuple(labels)
    if not all(isinstance(label, str) and label.strip() for label in values):
        raise SettingsError(f"labels of {name}: {values!r} are not texts")
    if values and (len(values) < 2 or len(set(values)) < len(values)):
        raise SettingsError(f"labels of {name}: {values!r} must be different from each other, and at least two")
    kind: type[_Declared] = type(f"Declared_{name}", (_Declared,), {"name": name, "labels": values})
    return kind()


def read_declaration(path: Path) -> dict[str, Any]:
    """The declaration of a task in a TOML file; raises DataError if it cannot be read or is not TOML."""
    return parse_toml(read_bytes(path), str(path))


def task_class(values: Mapping[str, Any], from_dataset: bool = False) -> type[Task]:
    """The class of a task from its declaration.

    Args:
        values: `name`, `prompt`, `target`, and perhaps `labels`, `instructions`, `scenario`, `text_tokenizer`,
            `metrics`, and `references`, the field that has a list of them.
        from_dataset: whether a dataset folder stores it, which has no `prompt` and `target` of tasks that were Python
            classes.

    Raises:
        SettingsError: a value is missing, unknown or of the wrong type, or a template is not a plain one.
    """
    allowed = (*_TEXTS, *_LISTS, "metrics")
    for name, value in values.items():
        if name not in allowed:
            raise SettingsError(f"unknown {name!r}; a task has {', '.join(allowed)}")
        if name in _TEXTS and not isinstance(value, str):
            raise SettingsError(f"{name} = {value!r:.60} must be a text")
        if name in _LISTS and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            raise SettingsError(f"{name} = {value!r:.60} must be a list of texts")
    templates = [name for name in ("prompt", "target") if name in values]
    for name in ("name", "prompt", "target"):
        if name not in values and not (from_dataset and not templates and name != "name"):
            raise SettingsError(f"lacks {name}, as in " + ('name = "tickets"' if name == "name" else _EXAMPLE[name]))
    attributes: dict[str, Any] = {_TEXTS[name]: values[name] for name in _TEXTS if name in values}
    attributes |= {name: tuple(values[name]) for name in _LISTS if name in values}
    if "metrics" in values:
        attributes["metrics"] = _metrics(values["metrics"])
    if not templates:
        return type("Task", (_Declared,), attributes)
    texts = [values["prompt"], values["target"], *values.get("instructions", ())]
    fields: dict[str, type] = {slot: str for text in texts for slot in _slots(text)}
    if "references" in values:
        fields[values["references"]] = list
    if not fields:
        raise SettingsError(f"prompt and target name no field of the rows, as in {_EXAMPLE['prompt']}")
    return type("Task", (_Templated,), attributes | {"fields": fields})


_EXAMPLE = {"prompt": 'prompt = "Ticket: {text}\\nUrgency:"', "target": 'target = " {label}"'}


def _slots(template: str) -> list[str]:
    """Names of the fields that a template is filled with."""
    slots = []
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise SettingsError(f"template {template!r}: {error}; write literal braces as {{{{ and }}}}") from error
    for _, slot, format_spec, conversion in parts:
        if slot is None:
            continue
        # A file of somebody else's must not reach attributes or items of the values that fill its templates.
        if not slot.isidentifier() or format_spec or conversion:
            raise SettingsError(f"template {template!r}: {{{slot}}} must be the name of a field and nothing else")
        slots.append(slot)
    return slots


def _metrics(values: Any) -> tuple[str | Metric, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str | dict) for value in values):
        raise SettingsError(f"metrics = {values!r:.60} must be a list of names")
    # TOML has no null, which stands for an infinite end.
    ends = {"least": None, "greatest": None}
    return tuple(value if isinstance(value, str) else Metric.from_dict(ends | value) for value in values)


def declaration_of(task: Task) -> dict[str, Any]:
    """What can be stored of a task without its code: all of a declared task; no prompt and target of a Python class.

    `read_declaration` gives it back from a file that was written with `to_toml`.
    """
    values: dict[str, Any] = {"name": task.name}
    if isinstance(task, _Templated):
        values |= {"prompt": task.plain, "target": task.target_template}
        values |= {name: list(getattr(task, name)) for name in ("instructions",) if getattr(task, name)}
        values |= {} if task.references_field is None else {"references": task.references_field}
        values |= {} if task.scenario == "finetune" else {"scenario": task.scenario}
    values |= {"labels": list(task.labels)} if task.labels else {}
    values |= {"text_tokenizer": task.text_tokenizer} if task.text_tokenizer else {}
    if tuple(task.metrics) != task.usual_metrics:
        values["metrics"] = [
            metric.name
            if METRICS.get(metric.name) == metric
            else {name: value for name, value in metric.to_dict().items() if value is not None}
            for metric in task.followed_metrics
        ]
    return values


def declaration_differences(theirs: Mapping[str, Any], current: Mapping[str, Any], here: str = "now") -> list[str]:
    """Differences between two declarations of one task, without templates if only one of them can have these."""
    code = {"prompt", "target", "references", "instructions", "scenario"}
    ignored: set[str] = set() if ("prompt" in theirs) == ("prompt" in current) else code
    left_values, right_values = (
        {name: value for name, value in declaration.items() if name not in ignored} for declaration in (theirs, current)
    )
    return value_differences(left_values, right_values, here)


def to_toml(values: Mapping[str, Any]) -> str:
    """A declaration as TOML."""
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(item)}' for name, item in value.items())} }}"
    # TOML's basic strings are JSON's, except that DEL must be escaped, too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
