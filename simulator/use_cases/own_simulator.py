"""The simulator of a use case that was given none: trained on the runs that are asked about, and kept beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.dataset.reading import only_config
from gptdynamics.errors import DataError
from simulator.evaluation.simulated import OpenSimulator, load_simulator
from simulator.ownership import prepare_model_folder
from simulator.reporting.verdicts import counted, removed_text
from simulator.settings.train import TrainSettings
from simulator.training import train_simulator
from simulator.training.fitter import OnPhase, OnProgress
from simulator.training.parts import fingerprint


def with_simulator(
    settings: Any,
    on_note: Callable[[str], None] = lambda line: None,
    on_phase: OnPhase = lambda name, total: None,
    on_progress: OnProgress = lambda: None,
    check: Callable[[Dynamics], None] = lambda runs: None,
) -> Any:
    """The settings of a use case with a simulator: the one they name, or one that is trained here and kept.

    Args:
        settings: have `model`, `dataset`, `config` and `metric`.
        on_note: told what was trained and where it is.
        on_phase, on_progress: as of `train_simulator`.
        check: called with the runs before a simulator is trained on them; it raises what they cannot be used for.

    Raises:
        GPTDynamicsError: the runs are missing or damaged, or nothing can be trained on them.
    """
    if settings.model is not None or settings.dataset is None:
        return settings
    model, note = own_simulator(settings.dataset, settings.config, settings.metric, on_phase, on_progress, check)
    on_note(note)
    return replace(settings, model=model)


def own_simulator(
    dataset: str,
    config: str | None = None,
    metric: str | None = None,
    on_phase: OnPhase = lambda name, total: None,
    on_progress: OnProgress = lambda: None,
    check: Callable[[Dynamics], None] = lambda runs: None,
) -> tuple[OpenSimulator, str]:
    """A simulator of the runs of a config and metric (default: loss): the one that is kept, or a new one.

    It is trained again if there are other runs than it was trained on, or if another version of the package kept it.

    Returns:
        The simulator, by the name of its folder, and a line on what it is and where.

    Raises:
        GPTDynamicsError: as of `with_simulator`.
    """
    config = config or only_config(dataset)
    runs = read_dynamics(dataset, config, metric or "loss")
    check(runs)
    folder = kept_folder(dataset) / f"{config}-{runs.metric}"
    settings = TrainSettings(dataset, config, runs.metric)
    expected = fingerprint(runs)
    if _trained_on(folder) == expected:
        with suppress(DataError):  # of another version of the package
            kept = load_simulator(str(folder))
            return OpenSimulator.of(kept, str(folder)), f"simulator: {folder}, trained on these runs before"
    prepare_model_folder(folder)
    try:
        trained = train_simulator(settings, on_phase, on_progress, runs=runs)
    except DataError as error:
        raise DataError(
            f"{error}. No simulator was given, and none could be trained on the runs of {config}"
        ) from error
    trained.save(folder, settings)
    fitted = trained.fitted[0]
    return OpenSimulator.of(trained.model, str(folder)), (
        f"no simulator was given: {trained.model.config.dynamics} was trained on {counted(fitted.runs, 'run')} and "
        f"kept in {folder}; {removed_text(fitted.removed, fitted.runs)}"
    )


def kept_folder(dataset: str) -> Path:
    """Where simulators of a dataset are kept: beside its folder; of one that is no folder, in the working directory."""
    path = Path(dataset)
    if path.is_dir():
        path = path.resolve() if path.name in ("", "..") else path
        return path.with_name(f"{path.name}-simulators")
    return Path("gptfluence-simulators") / dataset.replace("/", "--")


def _trained_on(folder: Path) -> str | None:
    """What the simulator in a folder was trained on; None where there is none that can be read."""
    try:
        content = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        [fitted] = content["fitted"]
        return str(fitted["fingerprint"]) if (folder / "model.safetensors").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
