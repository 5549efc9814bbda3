"""Several tasks at once: the scenario `instruct`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gptdynamics.errors import SettingsError
from gptdynamics.metrics import Metric, resolve_metrics
from gptdynamics.tasks.task import Task


@dataclass(frozen=True)
class Mixture:
    """Tasks that a run trains on together, with instructions.

    Attributes:
        name: of the mixture; names of configs begin with it.
        parts: the tasks whose rows runs train on; each needs instructions.
        test_parts: the tasks whose rows are in the test set, some of `parts`.
    """

    name: str
    parts: tuple[Task, ...]
    test_parts: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.parts]
        followed = [task.name for task in self.test_parts]
        if not names or not followed:
            raise SettingsError(f"mixture {self.name} needs tasks to train on and tasks to measure")
        for listed in (names, followed):
            if twice := sorted({name for name in listed if listed.count(name) > 1}):
                raise SettingsError(f"mixture {self.name} has {', '.join(twice)} twice")
        if unknown := [name for name in followed if name not in names]:
            raise SettingsError(f"mixture {self.name} measures {', '.join(unknown)} without training on it")
        if plain := [task.name for task in self.parts if not task.instructions]:
            raise SettingsError(f"mixture {self.name}: {', '.join(plain)} has no instructions")

    @property
    def scenario(self) -> Literal["instruct"]:
        """Mixtures are trained on with instructions."""
        return "instruct"

    @property
    def metrics(self) -> tuple[str | Metric, ...]:
        """Every metric that is measured for one of the tasks, `loss` first."""
        return tuple(dict.fromkeys(metric for task in self.test_parts for metric in task.metrics))

    @property
    def followed_metrics(self) -> tuple[Metric, ...]:
        """The same as objects; raises SettingsError if two tasks have different metrics of one name."""
        return resolve_metrics(self.metrics)
