"""Fitting markov with vectors by gradient descent, several configs and metrics together."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members
from simulator.settings.train import TrainSettings
from simulator.training.fitter import Fits, Fitter, OnPhase, OnProgress, Part, check_order
from simulator.training.markov_data import MarkovData
from simulator.training.markov_fit import fit_markov, weighted
from simulator.training.markov_residuals import FOLDS, markov_residuals
from simulator.training.presets import preset_of
from simulator.training.session import Session
from simulator.training.trained import Fitted


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


class MarkovFitter(Fitter):
    """Markov whose factors come from encoder vectors."""

    dynamics = "markov"
    has_closed_form = False
    has_checkpoints = True
    checked_on = ("validation runs", "the validation runs")

    @classmethod
    def serves(cls, settings: TrainSettings) -> bool:
        """Whether there are vectors to project."""
        return super().serves(settings) and settings.encoder != "index"

    @classmethod
    def check_runs(cls, settings: TrainSettings, runs: Dynamics, name: str) -> None:
        """See `Fitter`."""
        check_order(settings.order, runs, name)

    def fit(
        self, settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
    ) -> Fits:
        """See `Fitter`."""
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
            residuals = markov_residuals(
                config, training, validation, fit.choice, preset.training, session, on_progress
            )
        for part in parts:
            part.config.hidden = fit.choice.hidden
        tried = [asdict(choice) | {"error": error} for choice, error in fit.tried]
        fitted = [
            Fitted(part.config.dataset_config, part.config.metric, asdict(fit.choice), error, tried, fit.checks)
            for part, error in zip(parts, fit.errors, strict=True)
        ]
        shared = {f"dynamics.{name}": value for name, value in fit.dynamics.state_dict().items()}
        return Fits(fitted, residuals, shared, [{} for _ in parts])
