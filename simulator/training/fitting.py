"""Fitting each kind of dynamics to the runs of one config and metric, or of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members
from simulator.settings.train import TrainSettings
from simulator.training import memory_fit, table_fit
from simulator.training.markov_data import MarkovData
from simulator.training.markov_fit import fit_markov, weighted
from simulator.training.markov_residuals import FOLDS, markov_residuals
from simulator.training.presets import preset_of
from simulator.training.session import Session
from simulator.training.trained import Fitted
from simulator.training.unseen_fit import CURVE_COMPONENTS

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


def markov_data(runs: Dynamics, pool: np.ndarray, test: np.ndarray, head: int = 0) -> MarkovData:
    """Runs as markov sees them: one step from each measurement to the next.

    Args:
        runs: training or validation runs.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
        head: which factors are those of the runs' metric.
    """
    return MarkovData(
        members=Members.between(runs.curricula, [example.id for example in runs.pool], runs.step.tolist()),
        values=torch.from_numpy(runs.values),
        pool=torch.from_numpy(pool),
        test=torch.from_numpy(test),
        batch_size=runs.batch_size,
        head=head,
    )


def _markov(
    settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
) -> Fits:
    config = GPTfluenceConfig.of_parts([part.config for part in parts])
    data = [
        [
            markov_data(part.runs.split(split), part.pool, part.test, config.heads.index(part.config.metric))
            for part in parts
        ]
        for split in ("train", "validation")
    ]
    training, validation = weighted(*data)
    preset = preset_of(settings.preset, settings.configs, settings.objective, settings.seed).fixed(
        learning_rate=settings.learning_rate, penalty=settings.penalty, hidden=settings.hidden
    )
    what = f"{settings.dynamics}, {settings.encoder} vectors"
    on_phase(f"{what}: fitting", len(preset.choices))
    fit = fit_markov(config, training, validation, preset.training, on_progress, preset.choices, session)
    residuals = None
    if settings.bands:
        on_phase(f"{what}: runs left out", FOLDS)
        residuals = markov_residuals(config, training, validation, fit.choice, preset.training, session, on_progress)
    for part in parts:
        part.config.hidden = fit.choice.hidden
    tried = [asdict(choice) | {"error": error} for choice, error in fit.tried]
    fitted = [
        Fitted(part.config.dataset_config, part.config.metric, asdict(fit.choice), error, tried, fit.checks)
        for part, error in zip(parts, fit.errors, strict=True)
    ]
    shared = {f"dynamics.{name}": value for name, value in fit.dynamics.state_dict().items()}
    return Fits(fitted, residuals, shared, [{} for _ in parts])


def _memory(
    settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
) -> Fits:
    fitted, residuals, own = [], [], []
    on_phase(f"{settings.dynamics}, {settings.encoder} vectors: fitting", len(parts))
    for part in parts:
        chosen, config = part.runs.split("train", "validation"), part.config
        every = range(chosen.learning_rate.shape[1] + 1)
        visits = Members.between(chosen.curricula, [example.id for example in part.runs.pool], every)
        fit = memory_fit.fit_memory(
            visits,
            chosen.learning_rate,
            chosen.step,
            chosen.values,
            part.pool,
            part.test,
            config.scale,
            settings.bands,
        )
        config.components, config.test_components = fit.choice.components, fit.arrays["test_projection"].shape[1]
        for name, values in asdict(fit.choice.filters).items():
            setattr(config, name, list(values))
        config.curve_components, config.ridge = CURVE_COMPONENTS, fit.choice.ridge
        tried = [asdict(choice) | {"error": error} for choice, error in fit.tried]
        fitted.append(Fitted(config.dataset_config, config.metric, asdict(fit.choice), fit.error, tried))
        own.append({f"dynamics.{name}": torch.from_numpy(array) for name, array in fit.arrays.items()})
        if fit.residuals is not None and fit.unseen_residuals is not None:
            residuals.append((fit.residuals, fit.unseen_residuals))
        for number, each in enumerate(tried):
            session.log({f"{config.dataset_config} {config.metric}/error": each["error"]}, number)
        on_progress()
    return Fits(fitted, residuals or None, {}, own)


def _table(
    settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
) -> Fits:
    fitted, residuals, own = [], [], []
    on_phase("markov, index vectors: fitting", len(parts) * len(table_fit.choices(settings.kind)))
    for part in parts:
        config = part.config
        training, validation = (table_fit.indexed(part.runs.split(split)) for split in ("train", "validation"))
        fit = table_fit.fit_table(training, validation, config.kind, config.order, on_progress)
        tried = [asdict(choice) | {"error": error} for choice, error in fit.tried]
        fitted.append(Fitted(config.dataset_config, config.metric, asdict(fit.choice), fit.error, tried))
        weights = table_fit.table_dynamics(config, fit.factors).state_dict()
        own.append({f"dynamics.{name}": value for name, value in weights.items()})
        if settings.bands:
            residuals.append(table_fit.table_residuals(training, validation, config.kind, config.order, fit.choice))
    return Fits(fitted, residuals or None, {}, own)


def fit_parts(
    settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
) -> Fits:
    """Fit the dynamics that the settings name, and set the shapes of the parts' configurations to what was chosen.

    Raises:
        GPTDynamicsError: there are too few runs, or a checkpoint does not fit.
    """
    if settings.dynamics == "memory":
        return _memory(settings, parts, session, on_phase, on_progress)
    fit = _table if settings.encoder == "index" else _markov
    return fit(settings, parts, session, on_phase, on_progress)
