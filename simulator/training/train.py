"""From runs to a simulator: encode, fit, and put everything a prediction needs into one model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptdynamics.configs import split_of
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from gptdynamics.metrics import Metric
from simulator.encoders import make_encoder
from simulator.model.configuration_gptfluence import GPTfluenceConfig, Scale
from simulator.model.example_encoding import content_key
from simulator.model.intervals import band_arrays
from simulator.model.kinds import kind_named, kind_of
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.ownership import prepare_model_folder
from simulator.settings.train import TrainSettings
from simulator.training.checkpoints import Checkpoints
from simulator.training.fitter import OnPhase, OnProgress, Part, dynamics_and_inputs
from simulator.training.fitting import fitter_of
from simulator.training.leave_one_run_out import growth_of
from simulator.training.parts import check_part, fingerprint, read_parts, stride_of, with_dynamics
from simulator.training.session import Session, make_session
from simulator.training.trained import Fitted, Trained
from simulator.training.vectors import RunVectors, parts_of, run_vectors

# Of two runs, each is the other's whole mean curve.
FEWEST_LEFT_OUT = 3


def train_simulator(
    settings: TrainSettings,
    on_phase: OnPhase = lambda name, total: None,
    on_progress: OnProgress = lambda: None,
    runs: Dynamics | Sequence[Dynamics] | None = None,
    session: Session | None = None,
) -> Trained:
    """Train a simulator on the training and validation runs of one config and metric, or of several together.

    Args:
        settings: what to train.
        on_phase: called with the name of each phase and the number of its parts.
        on_progress: called after each part.
        runs: the runs of each config and metric, where they were read already.
        session: processes, device, checkpoints and trackers; default: this process alone, on the CPU.

    Raises:
        GPTDynamicsError: the data are missing, damaged or too few, or a checkpoint does not fit.
    """
    session = session or Session()
    every = [runs] if isinstance(runs, Dynamics) else list(runs) if runs else read_parts(settings)
    settings = with_dynamics(settings, every)
    for each in every:
        check_part(settings, each)
    on_phase(f"{dynamics_and_inputs(settings)}: encoding", sum(map(parts_of, every)))
    began = time.perf_counter()
    with session.main_first():
        parts = [_encoded(settings, each, on_progress) for each in every]
    encode_seconds = time.perf_counter() - began
    try:
        GPTfluenceConfig.of_parts([part.config for part in parts])
    except ValueError as error:
        raise DataError(f"{error}; train one each, or take sentence vectors") from error
    began = time.perf_counter()
    fits = fitter_of(settings).fit(settings, parts, session, on_phase, on_progress)
    own = []
    for index, part in enumerate(parts):
        state = dict(fits.own[index])
        if fits.residuals is not None:
            part.config.calibration_runs = len(fits.residuals[index][0])
            bands = band_arrays(*fits.residuals[index], part.runs.step, kind_of(part.config).history(part.config))
            state |= {name: torch.from_numpy(array).float() for name, array in bands.items()}
        own.append(state)
    seconds = time.perf_counter() - began
    fitted: list[Fitted] = []
    for index, (fit, part) in enumerate(zip(fits.fitted, parts, strict=True)):
        removed = None if fits.residuals is None else _removed(part, fits.residuals[index][0])
        part.config.removed = removed
        splits = [split_of(run) for run in part.runs.runs]
        used, held_out = sum(split in ("train", "validation") for split in splits), splits.count("test")
        digest = fingerprint(part.runs)
        fitted.append(replace(fit, removed=removed, runs=used, held_out=held_out, fingerprint=digest))
    trained = Trained(_model(parts, fits.shared, own), tuple(fitted), seconds, encode_seconds)
    trained.model.training_record = trained.record(settings)
    return trained


def train_and_save(
    settings: TrainSettings,
    folder: Path,
    report_to: tuple[str, ...] = (),
    on_phase: OnPhase = lambda name, total: None,
    on_progress: OnProgress = lambda: None,
) -> Trained:
    """Train a simulator into a folder, going on where a killed training of the same into the same folder was.

    Runs on what accelerate finds: one CPU, one GPU, or the processes of `accelerate launch`, of which one writes.

    Args:
        settings: what to train.
        folder: for the simulator; `checkpoints` in it are there while markov is trained, `logs` if trackers write
            files.
        report_to: trackers, e.g. `tensorboard`.
        on_phase, on_progress: as of `train_simulator`.

    Raises:
        GPTDynamicsError: as of `train_simulator` and `make_session`.
    """
    prepare_model_folder(folder)
    runs = read_parts(settings)
    settings = with_dynamics(settings, runs)
    plain = asdict(settings) | {f"runs of {each.config}, {each.metric}": fingerprint(each) for each in runs}
    checkpoints = Checkpoints(folder / "checkpoints", plain) if fitter_of(settings).has_checkpoints else None
    session = make_session(plain, checkpoints, report_to, folder / "logs")
    try:
        trained = train_simulator(settings, on_phase, on_progress, runs, session)
    finally:
        session.end()
    if session.main:
        trained.save(folder, settings)
        if checkpoints is not None:
            checkpoints.remove()
    return trained


def _removed(part: Part, residuals: np.ndarray) -> float | None:
    """Share of the mean curve's squared error that is removed on runs left out: skill, of runs that training used.

    Args:
        part: with its runs; those whose kernels the simulator has do not count.
        residuals: `[R, M, S]` of seen test examples, of the training and validation runs left out.
    """
    runs = part.runs.split("train", "validation")
    references = {each["run"] for each in part.config.references}
    judged = [index for index, run in enumerate(runs.runs) if run not in references]
    if len(residuals) != len(runs.runs) or len(runs.runs) < FEWEST_LEFT_OUT or not judged:
        return None
    values = runs.values.astype(np.float64)
    first = max(1, kind_of(part.config).history(part.config))
    alone = growth_of(len(values)) * (values - values.mean(0))
    # Markov leaves out a test example together with a run, and has no residual of that pair.
    left_out_error, mean_curve = (
        np.nanmean(np.square(each[judged, :, first:])) for each in (residuals.astype(np.float64), alone)
    )
    return float(1 - left_out_error / mean_curve) if mean_curve > 0 and np.isfinite(left_out_error) else None


def _encoded(settings: TrainSettings, runs: Dynamics, on_progress: OnProgress) -> Part:
    """A part with its vectors and its configuration before fitting."""
    if kind_named(settings.dynamics).has_kernels:
        empty = (np.empty((len(each), 0), dtype=np.float32) for each in (runs.pool, runs.test))
        return _part(settings, runs, RunVectors({"encoder": "kernel"}, *empty), 1)
    encoder = make_encoder(
        settings.encoder,
        runs.base_model,
        model=settings.encoder_model,
        pooling=settings.pooling,
        tokenization=runs.tokenization,
    )
    vectors = run_vectors(encoder, runs, on_progress)
    return _part(settings, runs, vectors, vectors.pool.shape[1])


def _part(settings: TrainSettings, runs: Dynamics, vectors: RunVectors, width: int) -> Part:
    """A part with these vectors of a `width`; that of kernels, which have none, is 1."""
    first_step, stride = stride_of(runs)
    curricula = runs.split("train", "validation").curricula
    visits = [Counter(key for batch in each for key in batch) for each in curricula]
    visited = set().union(*visits)
    config = GPTfluenceConfig(
        dynamics=settings.dynamics,
        metric=runs.metric,
        **metric_fields(runs.definition),
        dataset_config=runs.config,
        base_model=runs.base_model,
        base_revision=runs.base_revision,
        token_rule=runs.token_rule,
        encoder=vectors.encoder,
        encoder_width=width,
        pool_ids=[example.id for example in runs.pool],
        pool_keys=[content_key(example) for example in runs.pool],
        test_ids=[example.id for example in runs.test],
        test_keys=[content_key(example) for example in runs.test],
        steps=runs.learning_rate.shape[1],
        batch_size=runs.batch_size,
        learning_rate=runs.learning_rate[0].tolist(),
        most_visits=max(max(each.values(), default=0) for each in visits),
        fewest_rows=min(map(len, visits)),
        never_visited=[example.id for example in runs.pool if example.id not in visited],
        stride=stride,
        first_step=first_step,
        order=settings.order,
        projection="table" if settings.encoder == "index" else settings.projection,
        kind=settings.kind,
    )
    return Part(runs, config, vectors.pool, vectors.test)


def metric_fields(metric: Metric) -> dict[str, Any]:
    """What the configuration of a simulator says of its metric, so that it needs no dataset to know it."""
    scale = Scale(metric.latent, metric.least, metric.greatest)
    return scale.fields() | {"direction": "higher" if metric.higher_is_better else "lower"}


def _model(
    parts: list[Part], shared: Mapping[str, torch.Tensor], own: Sequence[Mapping[str, torch.Tensor]]
) -> GPTfluenceSimulator:
    """One model of all parts; each example's vector is stored once."""
    config = GPTfluenceConfig.of_parts([part.config for part in parts])
    model = GPTfluenceSimulator(config)
    # A training without bands leaves theirs as they are.
    state = {name: value for name, value in model.state_dict().items() if "band_" in name} | dict(shared)
    if not config.parts:
        [part] = parts
        state |= {"pool_vectors": torch.from_numpy(part.pool), "test_vectors": torch.from_numpy(part.test)} | dict(
            own[0]
        )
    else:
        pool = {key: row for part in parts for key, row in zip(part.config.pool_keys, part.pool, strict=True)}
        test = {key: row for part in parts for key, row in zip(part.config.test_keys, part.test, strict=True)}
        state["pool_vectors"] = torch.from_numpy(np.stack([pool[key] for key in config.pool_keys]))
        state["test_vectors"] = torch.from_numpy(np.stack([test[key] for key in config.test_keys]))
        state |= {f"parts.{index}.{name}": value for index, each in enumerate(own) for name, value in each.items()}
    model.load_state_dict(state)
    return model.eval()
