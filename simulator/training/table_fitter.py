"""Fitting a table of factors (Simfluence) in closed form, each config and metric by itself."""

from __future__ import annotations

from dataclasses import asdict

from gptdynamics.dataset import Dynamics
from simulator.settings.train import TrainSettings
from simulator.training import table_fit
from simulator.training.fitter import Fits, Fitter, OnPhase, OnProgress, Part, check_order
from simulator.training.session import Session
from simulator.training.trained import Fitted


class TableFitter(Fitter):
    """Markov with factors of each pair by itself, of `index` vectors."""

    dynamics = "markov"
    # Nothing is saved while a table is fitted, but its folder is that of markov.
    has_checkpoints = True
    checked_on = ("validation runs", "the validation runs")

    @classmethod
    def serves(cls, settings: TrainSettings) -> bool:
        """Whether vectors are places in a table."""
        return super().serves(settings) and settings.encoder == "index"

    @classmethod
    def check_runs(cls, settings: TrainSettings, runs: Dynamics, name: str) -> None:
        """See `Fitter`."""
        check_order(settings.order, runs, name)

    def fit(
        self, settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
    ) -> Fits:
        """See `Fitter`."""
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
