"""The runs that a training is of: of each config those metrics that it has, checked before anything is fitted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gptdynamics.dataset import Dynamics, metrics_of, read_dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator.model.curricula import measured_steps
from simulator.settings.train import AUTO, TrainSettings
from simulator.training.fitting import fitter_of
from simulator.training.reference_kernels import has_reference_kernels
from simulator.training.vectors import check_targets


def groups_of(dataset: str, configs: Sequence[str], metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Every config with each of the metrics that it has.

    Raises:
        SettingsError: a config is unknown or has none of the metrics, or a metric is of none of the configs.
        DataError: a file is damaged.
    """
    metrics_by_config = {config: metrics_of(dataset, config) for config in configs}
    groups = [(config, metric) for config in configs for metric in metrics if metric in metrics_by_config[config]]
    for config in configs:
        if config not in dict(groups):
            wanted = ", ".join(map(repr, metrics))
            raise SettingsError(f"{config} has no metric {wanted}; it has: {', '.join(metrics_by_config[config])}")
    for metric in metrics:
        if metric not in {name for _, name in groups}:
            raise SettingsError(f"no metric {metric!r} in {', '.join(configs)}")
    return groups


def read_parts(settings: TrainSettings) -> list[Dynamics]:
    """Runs of every config and metric of the settings.

    Raises:
        GPTDynamicsError: as `groups_of` and `read_dynamics`.
    """
    groups = groups_of(settings.dataset, settings.configs, settings.metrics)
    return [read_dynamics(settings.dataset, *group) for group in groups]


def with_dynamics(settings: TrainSettings, parts: Sequence[Dynamics]) -> TrainSettings:
    """The settings with a kind of dynamics in the place of `auto`: tangent if a training run of each part has kernels.

    Vectors other than the default ones are of memory.
    """
    if settings.dynamics != AUTO:
        return settings
    usual = settings.encoder == "gradient" and all(map(has_reference_kernels, parts))
    return replace(settings, dynamics="tangent" if usual else "memory")


def stride_of(runs: Dynamics) -> tuple[int, int]:
    """First measured step, and updates between two measurements."""
    return int(runs.step[0]), int(runs.step[1] - runs.step[0])


def check_part(settings: TrainSettings, runs: Dynamics) -> None:
    """See that runs can be trained on as the settings say.

    Raises:
        DataError: they were measured too seldom or at uneven steps, have values that are not finite, or lack targets
            that the encoder needs.
    """
    name = f"{runs.config}, {runs.metric}"
    check_targets(settings.encoder, runs)
    if len(runs.step) < 2:
        raise DataError(f"{name}: was measured once only: there are no dynamics to learn")
    first_step, stride = stride_of(runs)
    if runs.step.tolist() != measured_steps(runs.learning_rate.shape[1], stride, first_step):
        raise DataError(f"{name}: was not measured at even steps: {runs.step.tolist()}")
    fitter_of(settings).check_runs(settings, runs, name)
    for run, values in zip(runs.runs, runs.values, strict=True):
        wrong = ~np.isfinite(values)
        if wrong.any():
            test, step = np.argwhere(wrong)[0]
            raise DataError(
                f"{name}: run {run} has {values[test, step]} for test example {runs.test[test].id} at step "
                f"{runs.step[step]}; collect that run again"
            )


def fingerprint(runs: Dynamics) -> str:
    """What tells these runs from others: how many there are, and a hash of curricula, rates and values."""
    digest = hashlib.sha256(json.dumps([runs.runs, runs.curricula, runs.step.tolist()]).encode())
    digest.update(runs.learning_rate.tobytes())
    for values in runs.values:
        # Step by step, as simulators that were kept have it.
        digest.update(values.T.tobytes())
    return f"{len(runs.runs)} runs, {digest.hexdigest()[:16]}"
