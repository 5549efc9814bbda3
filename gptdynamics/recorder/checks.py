"""What must hold before a run joins the finished runs of its config: it starts and ends as they do."""

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

# Two machines differ by less in the losses of the same model, two models by more.
START_TOLERANCE = 0.01


def check_updates(folder: DatasetFolder, config: str, run: str, updates: int) -> None:
    """All runs of a config have the same number of updates.

    Raises:
        SettingsError: the finished runs have another one.
    """
    other = _finished_run(folder, config, run)
    if other is None:
        return
    table = read_parquet(folder.run_row_path(config, other), ["learning_rate"])
    theirs = len(table["learning_rate"][0])
    if theirs != updates:
        raise SettingsError(
            f"runs of {config} have {theirs} updates, and this training will have {updates}: "
            "train as long, or record it as another config"
        )


def unlike_others(folder: DatasetFolder, config: str, run: str, rates: Sequence[float], batch_size: int) -> str:
    """What a run has unlike an earlier one of its config, and what the runs can still be used for; else empty.

    Args:
        folder, config, run: the run.
        rates: its learning rate at each update.
        batch_size: examples in most of its updates.
    """
    other = _finished_run(folder, config, run)
    if other is None:
        return ""
    row = read_parquet(folder.run_row_path(config, other), ["learning_rate", "batch_size"]).to_pylist()[0]
    theirs, differ = np.array(row["learning_rate"]), []
    if len(theirs) != len(rates) or np.abs(theirs - np.array(rates)).max() > 1e-6 * theirs.max():
        differ.append("learning rates")
    if row["batch_size"] != batch_size:
        differ.append(f"batches ({batch_size} rows, {row['batch_size']} there)")
    if not differ:
        return ""
    said = f"run {run} has other {' and '.join(differ)} than run {other}"
    if differ[0] == "learning rates":
        return (
            f"{said}: memory and tangent fit runs of the same rates only. Fit these with --dynamics markov, or record "
            "each schedule as a config of its own"
        )
    return f"{said}: they are fitted together, each batch as the mean of its rows"


def check_resumed(resumed: Partial, now: Mapping[str, Any]) -> None:
    """A run is recorded after a checkpoint as before it.

    Args:
        resumed: what was recorded before the checkpoint.
        now: what the recorder was given.

    Raises:
        SettingsError: something differs; the message lists it.
    """
    names = {"run": resumed.run, "config": resumed.config, "base_revision": resumed.base_revision}
    then = names | EARLIER_RECORDING | resumed.recorded | {"kernels": resumed.kernels}
    differ = [f"{name}: {then.get(name)!r} then, {now[name]!r} now" for name in now if then.get(name) != now[name]]
    if differ:
        raise SettingsError(f"before the checkpoint the run was recorded otherwise ({'; '.join(differ)})")


def check_first_loss(
    folder: DatasetFolder,
    config: str,
    run: str,
    base: str,
    measurements: Measurements,
    model: PreTrainedModel,
    trained: torch.nn.Module,
) -> None:
    """All runs of a config start from the same model: before the first update, their losses agree.

    Args:
        folder, config, run: the run.
        base: name of the base model.
        measurements: of the model before its first update.
        model: the causal language model.
        trained: the same as it is trained, with its adapters.

    Raises:
        SettingsError: a loss differs.
    """
    other = _finished_run(folder, config, run)
    if other is None:
        return
    table = read_parquet(folder.run_path(config, other), ["test_id", "loss"])
    theirs = np.array([values[0] for values in table["loss"].to_pylist()])
    ours = measurements.values["loss"][0]
    differ = _differ(ours, theirs)
    # Adapters that change the model before the first update make every run start elsewhere.
    if not differ.any() or _adapters_change_loss(ours, measurements, model, trained):
        return
    index = int(np.argmax(differ))
    raise SettingsError(
        f"the model does not start where run {other} of {config} did: the loss of test example {index} "
        f"is {ours[index]:.4f}, there {theirs[index]:.4f}. Start from {base} as it was loaded, with its "
        "tokenizer, or record it as another config"
    )


def _finished_run(folder: DatasetFolder, config: str, run: str) -> str | None:
    return next((each for each in folder.finished(config) if each != run), None)


def _differ(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.abs(ours - theirs) > START_TOLERANCE * (1 + np.abs(theirs))


def _adapters_change_loss(loss: np.ndarray, measurements: Measurements, model: PreTrainedModel, trained: Any) -> bool:
    if not hasattr(trained, "disable_adapter"):
        return False
    with undisturbed(model), trained.disable_adapter(), measurements.mixed:
        without = measurements.test_set.measure(model)["loss"]
    return bool(_differ(loss, without).any())
