"""Checks that a run starts and ends like the finished runs of its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import EARLIER_RECORDING
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.errors import SettingsError
from gptdynamics.recorder.checkpoint import Partial
from gptdynamics.recorder.undisturbed import undisturbed
from gptdynamics.runs.measurements import Measurements

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Losses of one model differ by less between machines; losses of two models differ by more.
START_TOLERANCE = 0.01


def check_updates(folder: DatasetFolder, config: str, run: str, updates: int) -> None:
    """Check that a run has as many updates as the finished runs of its config.

    Raises:
        SettingsError: it has another number.
    """
    finished = _finished_run(folder, config, run)
    if finished is None:
        return
    table = read_parquet(folder.run_row_path(config, finished), ["learning_rate"])
    finished_updates = len(table["learning_rate"][0])
    if finished_updates != updates:
        raise SettingsError(
            f"runs of {config} have {finished_updates} updates, but this training has {updates}: "
            "train with the same number, or record it as another config"
        )


def unlike_others(folder: DatasetFolder, config: str, run: str, rates: Sequence[float], batch_size: int) -> str:
    """How a run differs from an earlier one of its config, and which simulators can use both; empty if it does not.

    Args:
        folder, config, run: the run.
        rates: its learning rate at each update.
        batch_size: examples in most of its updates.
    """
    finished = _finished_run(folder, config, run)
    if finished is None:
        return ""
    row = read_parquet(folder.run_row_path(config, finished), ["learning_rate", "batch_size"]).to_pylist()[0]
    earlier_rates, differences = np.array(row["learning_rate"]), []
    if len(earlier_rates) != len(rates) or np.abs(earlier_rates - np.array(rates)).max() > 1e-6 * earlier_rates.max():
        differences.append("learning rates")
    if row["batch_size"] != batch_size:
        differences.append(f"batches ({batch_size} rows, {row['batch_size']} there)")
    if not differences:
        return ""
    difference_text = f"run {run} differs from run {finished} in {' and '.join(differences)}"
    if differences[0] == "learning rates":
        return (
            f"{difference_text}: memory and tangent need runs with the same learning rates. Use --dynamics markov, or "
            "record each schedule as a config of its own"
        )
    return f"{difference_text}: simulators are fitted on both, with each batch as the mean of its rows"


def check_resumed(resumed: Partial, current: Mapping[str, Any]) -> None:
    """Check that a run is recorded after a checkpoint in the same way as before it.

    Args:
        resumed: the record before the checkpoint.
        current: settings of the recorder.

    Raises:
        SettingsError: something differs; the message lists it.
    """
    names = {"run": resumed.run, "config": resumed.config, "base_revision": resumed.base_revision}
    before = names | EARLIER_RECORDING | resumed.recorded | {"kernels": resumed.kernels}
    differences = [
        f"{name}: {before.get(name)!r} then, {current[name]!r} now"
        for name in current
        if before.get(name) != current[name]
    ]
    if differences:
        raise SettingsError(
            f"before the checkpoint the run was recorded with other settings ({'; '.join(differences)}). "
            "Give the recorder the same ones"
        )


def check_first_loss(
    folder: DatasetFolder,
    config: str,
    run: str,
    base: str,
    measurements: Measurements,
    model: PreTrainedModel,
    trained: torch.nn.Module,
) -> None:
    """Check that a run starts from the same model as the finished runs of its config, by its losses at step 0.

    Args:
        folder, config, run: the run.
        base: name of the base model.
        measurements: of the model before its first update.
        model: the causal language model.
        trained: the model that is trained, with its adapters.

    Raises:
        SettingsError: a loss differs.
    """
    finished = _finished_run(folder, config, run)
    if finished is None:
        return
    table = read_parquet(folder.run_path(config, finished), ["test_id", "loss"])
    finished_losses = np.array([values[0] for values in table["loss"].to_pylist()])
    losses = measurements.values["loss"][0]
    differing = _losses_differ(losses, finished_losses)
    # Adapters may change the model before the first update; then every run starts from another loss.
    if not differing.any() or _adapters_change_loss(losses, measurements, model, trained):
        return
    index = int(np.argmax(differing))
    raise SettingsError(
        f"the model does not start where run {finished} of {config} did: the loss of test example {index} is "
        f"{losses[index]:.4f}, in run {finished} {finished_losses[index]:.4f}. Start from unchanged weights of {base} "
        "with its tokenizer, or record the training as another config"
    )


def _finished_run(folder: DatasetFolder, config: str, run: str) -> str | None:
    return next((finished for finished in folder.finished(config) if finished != run), None)


def _losses_differ(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.abs(losses - reference) > START_TOLERANCE * (1 + np.abs(reference))


def _adapters_change_loss(loss: np.ndarray, measurements: Measurements, model: PreTrainedModel, trained: Any) -> bool:
    if not hasattr(trained, "disable_adapter"):
        return False
    with undisturbed(model), trained.disable_adapter(), measurements.mixed:
        without_adapters = measurements.test_set.measure(model)["loss"]
    return bool(_losses_differ(loss, without_adapters).any())
