"""Several tasks at once: the scenario `instruct`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gptdynamics.tasks.task import Task


@dataclass(frozen=True)
class Mixture:
    """Tasks that a run trains on together, with instructions.

    Attributes:
        name: of the mixture, as configs begin with it.
        parts: the tasks whose rows runs train on.
        test_parts: the tasks whose rows are followed.
    """

    name: str
    parts: tuple[Task, ...]
    test_parts: tuple[Task, ...]

    @property
    def scenario(self) -> Literal["instruct"]:
        """Mixtures are trained on with instructions."""
        return "instruct"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that one of the tasks is followed by, `loss` first."""
        return tuple(dict.fromkeys(metric for task in self.test_parts for metric in task.metrics))
