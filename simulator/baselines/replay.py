"""A recorded run, trained again from its base model, so that its weights can be looked at after every update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import run_seed
from gptdynamics.dataset import DatasetFolder, Dynamics
from gptdynamics.dataset.reading import local_root
from gptdynamics.models.base_model import BaseModel
from gptdynamics.reference.run import NotRepeatableError, load_trained_base, trained_settings
from gptdynamics.runs import Bench, BenchContents
from simulator.baselines.predictor import NotApplicableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def trained_with(runs: Dynamics, device: str = "cpu") -> tuple[RunSettings, BaseModel]:
    """What a config's runs were trained with, where they can be trained again here: settings and base model.

    Args:
        runs: of the config.
        device: of the base model: `cpu`, or a GPU such as `cuda:0`.

    Raises:
        NotApplicableError: the dataset has no manifest or no texts, or the base model is another one here.
        SettingsError: the base model cannot be had.
    """
    for example in (*runs.pool, *runs.test):
        if example.withheld:
            raise NotApplicableError(example.withheld_message)
    folder = DatasetFolder(local_root(runs.source))
    try:
        settings = trained_settings(folder, runs.config)
        base = load_trained_base(runs.base_model, runs.base_revision, f"the runs of {runs.config}", device)
    except NotRepeatableError as error:
        raise NotApplicableError(str(error)) from error
    return settings, base


def open_bench(runs: Dynamics, device: str = "cpu") -> Bench:
    """The bench that a config's runs were made on, with the examples and in the order of the runs read.

    Args: as of `trained_with`.

    Raises:
        NotApplicableError, SettingsError: as of `trained_with`.
    """
    settings, base = trained_with(runs, device)
    return Bench(BenchContents(settings, tuple(runs.pool), tuple(runs.test)), base=base)


def replay(bench: Bench, runs: Dynamics, index: int, repeat: int = 0) -> Iterator[PreTrainedModel]:
    """The model before the first update and after each one, in evaluation mode: the same object, changing.

    `index` is that of the run among `runs`; `repeat` 0 takes the random numbers that the run was recorded with, another
    number others (dropout, adapters' first values).
    """
    entropy = [*run_seed(bench.settings, runs.runs[index]), *([repeat] if repeat else [])]
    return bench.weights(runs.curricula[index], runs.learning_rate[index].tolist(), entropy)
