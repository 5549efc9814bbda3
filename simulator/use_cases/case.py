"""A simulator with the runs it is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptdynamics.configs import split_of
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.hub.source import SHORT_NAME, is_hub_id
from gptdynamics.parsing import read_object
from simulator.evaluation.simulated import load_simulator, simulated_of
from simulator.model.modeling_gptfluence import GPTfluenceSimulator


@dataclass(frozen=True)
class Case:
    """A simulator, its name in tables, and all runs of the config and metric it was trained on."""

    model: GPTfluenceSimulator
    method: str
    runs: Dynamics

    def run(self, name: str | None = None) -> Dynamics:
        """One run; by default the first that the simulator was not trained on, or the first.

        Raises:
            SettingsError: there is no such run.
        """
        names = self.runs.runs
        if name is None:
            name = next((each for each in names if split_of(each) == "test"), names[0])
        if name not in names:
            raise SettingsError(f"{self.runs.source} has no run {name!r} of {self.runs.config}; {_some(names)}")
        return self.runs.take([names.index(name)])

    def higher_is_better(self) -> bool:
        """Whether a higher value of the metric is better."""
        return self.runs.definition.higher_is_better


def load_part(model: str | None, config: str | None = None, metric: str | None = None) -> GPTfluenceSimulator:
    """Load a simulator of one config and metric, or that part of one of several.

    Raises:
        DataError: it is missing or damaged.
        SettingsError: it has no such part, or several that fit; the message says which.
    """
    if model is None:
        raise SettingsError("there is no simulator: name one, or let own_simulator train one")
    simulator = load_simulator(model)
    try:
        return simulator.part(config, metric)
    except ValueError as error:
        raise SettingsError(f"{model}: {error}; say which with --config and --metric") from error


def dataset_of(model: str | None, dataset: str | None) -> str:
    """The dataset that is named, or that which the simulator in a folder says it was trained on.

    Raises:
        SettingsError: neither is named, the simulator does not say it, or what it says is not here.
    """
    if dataset is not None:
        return dataset
    if model is None:
        raise SettingsError("give a dataset, or a simulator with --model that knows what it was trained on")
    path = Path(model) / "training.json"
    settings = read_object(path).get("settings") if path.is_file() else None
    dataset = settings.get("dataset") if isinstance(settings, dict) else None
    if not isinstance(dataset, str) or not dataset:
        raise SettingsError(f"{model} does not say which dataset it was trained on: name it with --dataset")
    if dataset != SHORT_NAME and not Path(dataset).is_dir() and not is_hub_id(dataset):
        raise SettingsError(f"{model} was trained on {dataset}, which is not here: name its place with --dataset")
    return dataset


def load_case(model: str | None, dataset: str | None, config: str | None = None, metric: str | None = None) -> Case:
    """Load a simulator and the runs of its config; `config` and `metric` say which part of one of several.

    Without a dataset it is that which the simulator was trained on.

    Raises:
        DataError, SettingsError: one of them is missing or damaged, or they do not fit each other.
    """
    simulator = load_part(model, config, metric)
    runs = read_dynamics(dataset_of(model, dataset), simulator.config.dataset_config, simulator.config.metric)
    return Case(simulator, simulated_of(simulator, model, runs).name, runs)


def _some(names: list[str]) -> str:
    return f"it has {names[0]} to {names[-1]}" if len(names) > 1 else f"it has {names[0]}"
