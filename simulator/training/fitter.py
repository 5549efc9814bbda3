"""What every way of fitting says of itself: how it fits, with runs left out too, and what it accepts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.settings.train import TrainSettings
from simulator.training.session import Session
from simulator.training.trained import Fitted

OnPhase = Callable[[str, int], None]
OnProgress = Callable[[], None]


@dataclass(frozen=True)
class Part:
    """Runs of one config and metric with the vectors of their examples.

    Attributes:
        runs: the runs.
        config: what the simulator will say of this part.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
    """

    runs: Dynamics
    config: GPTfluenceConfig
    pool: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Fits:
    """What fitting gave.

    Attributes:
        fitted: how each part was fitted.
        residuals: of runs left out, of seen and of unseen test examples, for each part; None: no bands are wanted.
        shared: weights that all parts share, by their names in the model.
        own: weights of each part, by their names in a model of that part alone.
    """

    fitted: list[Fitted]
    residuals: list[tuple[np.ndarray, np.ndarray]] | None
    shared: Mapping[str, torch.Tensor]
    own: Sequence[Mapping[str, torch.Tensor]]


class Fitter(ABC):
    """How one kind of dynamics is fitted.

    Attributes:
        dynamics: name of the kind.
        has_closed_form: whether no gradient descent is needed, so that its settings are not this kind's.
        has_checkpoints: whether a training that was killed goes on where it was.
        checked_on: which runs the error of a setting is of, in short and at length.
    """

    dynamics: ClassVar[str]
    has_closed_form: ClassVar[bool] = True
    has_checkpoints: ClassVar[bool] = False
    checked_on: ClassVar[tuple[str, str]] = ("runs left out", "runs left out, one at a time")

    @classmethod
    def serves(cls, settings: TrainSettings) -> bool:
        """Whether settings are of this fitter; those of one kind differ in other settings."""
        return settings.dynamics == cls.dynamics

    @classmethod
    def check_settings(cls, settings: TrainSettings) -> None:
        """Raise SettingsError where settings do not fit this kind."""
        return

    @classmethod
    def check_runs(cls, settings: TrainSettings, runs: Dynamics, name: str) -> None:
        """Raise DataError, which begins with `name`, where runs do not fit this kind."""
        return

    @abstractmethod
    def fit(
        self, settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
    ) -> Fits:
        """Fit all parts, with runs left out too if bands are wanted, and set the shapes in their configurations.

        Raises:
            GPTDynamicsError: there are too few runs, or a checkpoint does not fit.
        """


def check_order(order: int, runs: Dynamics, name: str) -> None:
    """Raise DataError where runs have too few measurements for an order of markov."""
    if order >= len(runs.step):
        raise DataError(f"{name}: order {order} needs more than {order} measurements in a run; it has {len(runs.step)}")
