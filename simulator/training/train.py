"""From runs to a simulator: encode, fit, and put everything a prediction needs into one model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptdynamics.atomic import write_text
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator.configuration_gptfluence import KINDS, GPTfluenceConfig
from simulator.curricula import measured_steps, shares_between, visit_shares
from simulator.encoders import check_encoder, make_encoder
from simulator.intervals import band_arrays
from simulator.modeling_gptfluence import GPTfluenceSimulator, content_key
from simulator.training import markov_fit, memory_fit, table_fit
from simulator.training.markov_residuals import markov_residuals
from simulator.training.unseen_fit import CURVE_COMPONENTS
from simulator.training.vectors import parts_of, run_vectors

DYNAMICS = ("memory", "markov")
PROJECTIONS = ("linear", "mlp")


@dataclass(frozen=True)
class TrainSettings:
    """What one `train` does.

    Attributes:
        dataset: folder or Hub id.
        config: `<task>_<size>`.
        metric: what to predict.
        dynamics: `memory` or `markov`.
        encoder: one of `simulator.encoders.ENCODERS`; with `index`, markov of order 1 is Simfluence.
        order: n of markov.
        projection: of markov: `linear` or `mlp`; `index` vectors have a table in its place.
        seed: of weights and batches.
        encoder_model: of `sentence` and `causal_lm` encoders, see `make_encoder`; None: MiniLM and the base model.
        pooling: of the same: `mean`, `first` or (`causal_lm`) `last`; None: the encoder's own.
        kind: of `index`: `linear`, or `additive` or `multiplicative` for one kind of factors only.
    """

    dataset: str
    config: str
    metric: str = "loss"
    dynamics: str = "memory"
    encoder: str = "gradient"
    order: int = 1
    projection: str = "linear"
    seed: int = 42
    encoder_model: str | None = None
    pooling: str | None = None
    kind: str = "linear"

    def __post_init__(self) -> None:
        for name, known in (("dynamics", DYNAMICS), ("projection", PROJECTIONS), ("kind", KINDS)):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        check_encoder(self.encoder, self.encoder_model, self.pooling)
        if self.kind != "linear" and self.encoder != "index":
            raise SettingsError(f"kind={self.kind!r} is one of Simfluence's: give encoder index")
        if self.dynamics == "memory" and self.encoder == "index":
            raise SettingsError(
                "memory needs vectors that say which examples are alike; index is for --dynamics markov"
            )
        if self.order < 1:
            raise SettingsError(f"order={self.order} must be at least 1")


@dataclass(frozen=True)
class Trained:
    """A simulator and how it was found.

    Attributes:
        model: the simulator.
        choice: the setting that won, as plain values.
        error: its error on validation runs (markov) or runs left out (memory).
        tried: every setting with its error.
        seconds: of fitting, without encoding.
        encode_seconds: of encoding.
    """

    model: GPTfluenceSimulator
    choice: dict[str, Any]
    error: float
    tried: list[dict[str, Any]]
    seconds: float
    encode_seconds: float

    def save(self, folder: Path, settings: TrainSettings) -> None:
        """Write the model, and beside it the settings and everything that was tried.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.model.save_pretrained(folder)
        except OSError as error:
            raise DataError(f"cannot write {folder}: {error.strerror or error}") from error
        record = {
            "settings": asdict(settings),
            "choice": self.choice,
            "error": self.error,
            "seconds": round(self.seconds, 2),
            "encode_seconds": round(self.encode_seconds, 2),
            "tried": self.tried,
        }
        write_text(folder / "training.json", json.dumps(record, indent=1) + "\n")


def markov_data(runs: Dynamics, pool: np.ndarray, test: np.ndarray) -> markov_fit.MarkovData:
    """Runs as markov sees them: one step from each measurement to the next."""
    shares = visit_shares(runs.curricula, [example.id for example in runs.pool])
    return markov_fit.MarkovData(
        visits=shares_between(shares, runs.step.tolist()),
        values=torch.from_numpy(runs.values),
        pool=torch.from_numpy(pool),
        test=torch.from_numpy(test),
    )


def train_simulator(
    settings: TrainSettings,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
    runs: Dynamics | None = None,
) -> Trained:
    """Train a simulator on a config's training and validation runs.

    Args:
        settings: what to train.
        on_phase: called with the name of each phase and the number of its parts.
        on_progress: called after each part.
        runs: the config's runs, where they were read already.

    Raises:
        GPTDynamicsError: the data are missing, damaged or too few.
    """
    runs = runs or read_dynamics(settings.dataset, settings.config, settings.metric)
    if len(runs.step) < 2:
        raise DataError(f"{settings.config}: {settings.metric} was measured once only: there are no dynamics to learn")
    first_step, stride = int(runs.step[0]), int(runs.step[1] - runs.step[0])
    if runs.step.tolist() != measured_steps(runs.learning_rate.shape[1], stride, first_step):
        raise DataError(f"{settings.config}: {settings.metric} was not measured at even steps: {runs.step.tolist()}")
    encoder = make_encoder(settings.encoder, runs.base_model, model=settings.encoder_model, pooling=settings.pooling)
    on_phase(f"{settings.dynamics}, {settings.encoder} vectors: encoding", parts_of(runs))
    began = time.perf_counter()
    vectors = run_vectors(encoder, runs, on_progress)
    pool, test = vectors.pool, vectors.test
    encode_seconds = time.perf_counter() - began
    config = GPTfluenceConfig(
        dynamics=settings.dynamics,
        metric=settings.metric,
        dataset_config=settings.config,
        base_model=runs.base_model,
        base_revision=runs.base_revision,
        encoder=vectors.encoder,
        encoder_width=pool.shape[1],
        pool_ids=[example.id for example in runs.pool],
        pool_keys=[content_key(example) for example in runs.pool],
        test_ids=[example.id for example in runs.test],
        test_keys=[content_key(example) for example in runs.test],
        steps=runs.learning_rate.shape[1],
        batch_size=runs.batch_size,
        learning_rate=runs.learning_rate[0].tolist(),
        stride=stride,
        first_step=first_step,
        order=settings.order,
        projection="table" if settings.encoder == "index" else settings.projection,
        kind=settings.kind,
    )
    began = time.perf_counter()
    fit: Any
    if settings.dynamics == "memory":
        fit = _memory(config, runs, pool, test)
        state = {f"dynamics.{name}": torch.from_numpy(array) for name, array in fit.arrays.items()}
        residuals = fit.residuals, fit.unseen_residuals
    elif settings.encoder == "index":
        fit, state, residuals = _table(config, runs, on_phase, on_progress)
    else:
        on_phase(f"{settings.dynamics}, {settings.encoder} vectors: fitting", len(markov_fit.choices()))
        how = markov_fit.MarkovTraining(seed=settings.seed)
        training, validation = (markov_data(runs.split(split), pool, test) for split in ("train", "validation"))
        fit = markov_fit.fit_markov(config, training, validation, how, on_progress)
        config.hidden = fit.choice.hidden
        state = {f"dynamics.{name}": value for name, value in fit.dynamics.state_dict().items()}
        residuals = markov_residuals(config, training, validation, fit.choice, how)
    config.calibration_runs = len(residuals[0])
    bands = band_arrays(*residuals, runs.step, settings.order if settings.dynamics == "markov" else 1)
    state |= {name: torch.from_numpy(array).float() for name, array in bands.items()}
    seconds = time.perf_counter() - began
    model = GPTfluenceSimulator(config)
    state |= {"pool_vectors": torch.from_numpy(pool), "test_vectors": torch.from_numpy(test)}
    model.load_state_dict(state)
    return Trained(
        model=model.eval(),
        choice=asdict(fit.choice),
        error=fit.error,
        tried=[asdict(choice) | {"error": error} for choice, error in fit.tried],
        seconds=seconds,
        encode_seconds=encode_seconds,
    )


def _table(
    config: GPTfluenceConfig,
    runs: Dynamics,
    on_phase: Callable[[str, int], None],
    on_progress: Callable[[], None],
) -> tuple[table_fit.TableFit, dict[str, torch.Tensor], tuple[np.ndarray, np.ndarray]]:
    """Fit a factor for each pair; returns the fit, the weights, and residuals of seen and of unseen test examples."""
    on_phase("markov, index vectors: fitting", len(table_fit.choices(config.kind)))
    training, validation = (table_fit.indexed(runs.split(split)) for split in ("train", "validation"))
    fit = table_fit.fit_table(training, validation, config.kind, config.order, on_progress)
    weights = table_fit.table_dynamics(config, fit.factors).state_dict()
    residuals = table_fit.table_residuals(training, validation, config.kind, config.order, fit.choice)
    return fit, {f"dynamics.{name}": value for name, value in weights.items()}, residuals


def _memory(config: GPTfluenceConfig, runs: Dynamics, pool: np.ndarray, test: np.ndarray) -> memory_fit.MemoryFit:
    """Fit memory dynamics and set the shapes of `config` to what was chosen."""
    chosen = runs.split("train", "validation")
    visits = visit_shares(chosen.curricula, [example.id for example in runs.pool]).numpy()
    fit = memory_fit.fit_memory(visits, chosen.learning_rate, chosen.step, chosen.values, pool, test, config.metric)
    config.components, config.test_components = fit.choice.components, fit.arrays["test_projection"].shape[1]
    config.decays, config.fadings = list(fit.choice.filters.decays), list(fit.choice.filters.fadings)
    config.curve_components = CURVE_COMPONENTS
    return fit
