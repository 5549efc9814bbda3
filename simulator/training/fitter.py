"""The protocol of fitting a kind of dynamics, with runs left out too, and which settings and runs it accepts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from gptdynamics.configs import split_of
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.kinds import kind_named
from simulator.settings.train import TrainSettings
from simulator.training.session import Session
from simulator.training.trained import Fitted

OnPhase = Callable[[str, int], None]
OnProgress = Callable[[], None]
# Truth minus prediction `[R, M, S]` of runs left out, of seen and of unseen test examples; NaN where there is none.
Residuals = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Part:
    """Runs of one config and metric, their configuration, which fitting completes, and `[N, E]`, `[M, E]` vectors."""

    runs: Dynamics
    config: GPTfluenceConfig
    pool: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Fits:
    """The result of fitting.

    Attributes:
        fitted, residuals: of each part; residuals are None where no bands are wanted.
        shared: weights that all parts share, by their names in the model.
        own: weights of each part, by their names in a model of that part alone.
    """

    fitted: list[Fitted]
    residuals: list[Residuals] | None
    shared: Mapping[str, torch.Tensor]
    own: Sequence[Mapping[str, torch.Tensor]]


class Fitter(ABC):
    """How one kind of dynamics is fitted.

    Attributes:
        dynamics: name of the kind.
        has_closed_form: whether it is fitted without gradient descent and does not have the settings of that.
        has_checkpoints: whether a killed training continues where it was.
        checked_on: the runs that settings are compared on, in short and at length.
    """

    dynamics: ClassVar[str]
    has_closed_form: ClassVar[bool] = True
    has_checkpoints: ClassVar[bool] = False
    checked_on: ClassVar[tuple[str, str]] = ("runs left out", "runs left out, one at a time")

    @classmethod
    def serves(cls, settings: TrainSettings) -> bool:
        """Whether settings are of this fitter; fitters of one kind differ in other settings."""
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


@dataclass(frozen=True)
class PartFit:
    """The result of fitting one part: the best setting, a dataclass, and every setting with its error.

    `weights` are of the dynamics, by name; `residuals` are None where no bands are wanted.
    """

    choice: Any
    error: float
    tried: Sequence[tuple[Any, float]]
    weights: Mapping[str, torch.Tensor]
    residuals: Residuals | None


class SeparateFitter(Fitter):
    """A fitter of each config and metric by itself."""

    def ticks(self, settings: TrainSettings) -> int:
        """How often `fit_part` calls `on_progress`."""
        return 1

    @abstractmethod
    def fit_part(self, settings: TrainSettings, part: Part, on_progress: OnProgress) -> PartFit:
        """Fit one part, and set the shapes in its configuration; see `Fitter.fit`."""

    def fit(
        self, settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
    ) -> Fits:
        """See `Fitter`."""
        on_phase(f"{dynamics_and_inputs(settings)}: fitting", len(parts) * self.ticks(settings))
        fitted, residuals, own = [], [], []
        for part in parts:
            fit = self.fit_part(settings, part, on_progress)
            fitted.append(Fitted.of(part.config, fit.choice, fit.error, fit.tried))
            own.append({f"dynamics.{name}": value for name, value in fit.weights.items()})
            if fit.residuals is not None:
                residuals.append(fit.residuals)
            for number, (_, error) in enumerate(fit.tried):
                session.log({f"{part.config.dataset_config} {part.config.metric}/error": error}, number)
        return Fits(fitted, residuals or None, {}, own)


def dynamics_and_inputs(settings: TrainSettings) -> str:
    """The kind of dynamics and what it predicts from, for messages."""
    inputs = "kernels" if kind_named(settings.dynamics).has_kernels else f"{settings.encoder} vectors"
    return f"{settings.dynamics}, {inputs}"


def check_order(order: int, runs: Dynamics, name: str) -> None:
    """Raise DataError where runs have too few measurements for an order of markov."""
    if order >= len(runs.step):
        raise DataError(f"{name}: order {order} needs more than {order} measurements in a run; it has {len(runs.step)}")


def check_one_schedule(runs: Dynamics, name: str) -> None:
    """Raise DataError where training or validation runs have other learning rates than the first of them.

    Dynamics with a mean curve compare runs update by update, and take what they differ by for the work of their rows.
    """
    fitted = [place for place, run in enumerate(runs.runs) if split_of(run) in ("train", "validation")]
    rates = runs.learning_rate[fitted]
    other = [fitted[at] for at, own in enumerate(rates) if np.abs(own - rates[0]).max() > 1e-6 * rates.max()]
    if not other:
        return
    first, peaks = runs.runs[fitted[0]], sorted({float(runs.learning_rate[place].max()) for place in other})
    raise DataError(
        f"{name}: {', '.join(runs.runs[place] for place in other)} have other learning rates than {first} (at most "
        f"{', '.join(f'{peak:.3g}' for peak in peaks)}; there {rates[0].max():.3g}): memory and tangent fit runs of "
        "one schedule. Train with --dynamics markov, or have each schedule as a config of its own"
    )
