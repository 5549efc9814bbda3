"""Fitting memory in closed form, each config and metric by itself."""

from __future__ import annotations

from dataclasses import asdict

import torch

from gptdynamics.errors import SettingsError
from simulator.model.curricula import Members
from simulator.settings.train import TrainSettings
from simulator.training import memory_fit
from simulator.training.fitter import Fits, Fitter, OnPhase, OnProgress, Part
from simulator.training.session import Session
from simulator.training.trained import Fitted
from simulator.training.unseen_fit import CURVE_COMPONENTS


class MemoryFitter(Fitter):
    """Mean curves and ridge regressions; a setting is checked on runs left out."""

    dynamics = "memory"

    @classmethod
    def check_settings(cls, settings: TrainSettings) -> None:
        """See `Fitter`."""
        if settings.encoder == "index":
            raise SettingsError(
                "memory needs vectors that say which examples are alike; index is for --dynamics markov"
            )
        if settings.order != 1:
            raise SettingsError(f"order={settings.order} is of markov; memory is given one value")

    def fit(
        self, settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
    ) -> Fits:
        """See `Fitter`."""
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
