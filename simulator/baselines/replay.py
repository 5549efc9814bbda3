"""A recorded run, trained again from its base model, so that its weights can be looked at after every update."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptdynamics.base_model import BaseModel, load_base_model
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import run_seed
from gptdynamics.dataset import DatasetFolder, Dynamics
from gptdynamics.dataset.reading import local_root
from gptdynamics.runs.updates import Updates
from gptdynamics.tasks import get_single_task
from gptdynamics.tokens import TokenizedExample, tokenize_example
from simulator.baselines.predictor import NotApplicableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ReplayedConfig:
    """What the replays of all runs of a config share.

    Attributes:
        settings: of the config.
        base: what the runs started from.
        pool, test: tokenised examples in the order of the runs read.
        places: place of each pool example, by id.
    """

    settings: RunSettings
    base: BaseModel
    pool: list[TokenizedExample]
    test: list[TokenizedExample]
    places: dict[int, int]

    @property
    def model(self) -> PreTrainedModel:
        """The base model itself."""
        return self.base.model


def trained_with(runs: Dynamics) -> tuple[RunSettings, BaseModel]:
    """What a config's runs were trained with, where they can be trained again here: settings and base model.

    Raises:
        NotApplicableError: the dataset has no manifest or no texts, or the base model is another one here.
        SettingsError: the base model cannot be had.
    """
    folder = DatasetFolder(local_root(runs.source))
    if not folder.manifest_path(runs.config).exists() or not folder.manifest(runs.config)["settings"]:
        raise NotApplicableError(f"{runs.config} has no manifest with the settings that its runs were trained with")
    for example in (*runs.pool, *runs.test):
        if example.withheld:
            raise NotApplicableError(f"{example.task} example {example.id} has no text: the release leaves texts out")
    settings = RunSettings(**folder.manifest(runs.config)["settings"])
    base = load_base_model(runs.base_model)
    if base.revision != runs.base_revision:
        raise NotApplicableError(
            f"the runs of {runs.config} started from {runs.base_model} {runs.base_revision}, here it is {base.revision}"
        )
    return settings, base


def replayed_config(runs: Dynamics) -> ReplayedConfig:
    """Load what replays need.

    Raises:
        NotApplicableError, SettingsError: as of `trained_with`.
    """
    settings, base = trained_with(runs)
    context = min(base.context, settings.max_length)

    def tokens(part: str) -> list[TokenizedExample]:
        examples = runs.pool if part == "pool" else runs.test
        return [
            tokenize_example(base.tokenizer, each, context, get_single_task(each.task).generates) for each in examples
        ]

    places = {example.id: at for at, example in enumerate(runs.pool)}
    return ReplayedConfig(settings, base, tokens("pool"), tokens("test"), places)


def replay(config: ReplayedConfig, runs: Dynamics, at: int, repeat: int = 0) -> Iterator[PreTrainedModel]:
    """The model before the first update and after each one, in evaluation mode: the same object, changing.

    Args:
        config: from `replayed_config`.
        runs: of which.
        at: place of the run.
        repeat: 0 for the random numbers that the run was recorded with, else others (dropout, adapters' first values).
    """
    settings, run = config.settings, runs.runs[at]
    entropy = [*run_seed(settings, run), *([repeat] if repeat else [])]
    updates = Updates(config.model, settings, entropy)
    yield updates.model
    for ids, rate in zip(runs.curricula[at], runs.learning_rate[at], strict=True):
        updates.loss([config.pool[config.places[each]] for each in ids]).backward()
        updates.step(float(rate))
        yield updates.model
