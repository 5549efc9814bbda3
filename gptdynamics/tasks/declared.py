"""Tasks that a dataset folder declares: prompts and targets of a user's own, which no class makes of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from gptdynamics.errors import SettingsError
from gptdynamics.tasks.task import Row, Task


class _Declared(Task):
    """Rows are examples already."""

    fields: ClassVar[dict[str, type]] = {"prompt": str, "target": str}
    plain = "{prompt}"

    def target(self, row: Row) -> str:
        return str(row["target"])


def declared_task(name: str, labels: Iterable[str]) -> Task:
    """A task that is known by its labels only, and not registered; without labels text is generated and scored.

    Raises SettingsError if the labels are no texts, or fewer than two different ones.
    """
    values: tuple[Any, ...] = tuple(labels)
    if not all(isinstance(label, str) and label.strip() for label in values):
        raise SettingsError(f"labels of {name}: {values!r} are not texts")
    if values and (len(values) < 2 or len(set(values)) < len(values)):
        raise SettingsError(f"labels of {name}: {values!r} must be different from each other, and at least two")
    kind: type[_Declared] = type(f"Declared_{name}", (_Declared,), {"name": name, "labels": values})
    return kind()
