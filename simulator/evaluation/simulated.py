"""A simulator as a method of an evaluation."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import visit_shares
from simulator.model.dynamics import EncodedExamples, SimulationInputs
from simulator.model.example_encoding import content_key
from simulator.model.intervals import Coverage, coverage
from simulator.model.kinds import kind_named, kind_of
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.settings.train import TrainSettings
from simulator.training.reference_kernels import recorded_examples


class OpenSimulator(str):
    """A simulator that is in memory, in the place of a folder or a Hub id: its name in tables and messages."""

    simulator: GPTfluenceSimulator

    @classmethod
    def of(cls, simulator: GPTfluenceSimulator, name: str) -> OpenSimulator:
        """Name a simulator.

        Raises:
            SettingsError: it is none.
        """
        if not isinstance(simulator, GPTfluenceSimulator):
            raise SettingsError(
                f"{simulator!r:.60} is no simulator. Give a folder, a Hub id, or a GPTfluenceSimulator such as "
                "train(...).model"
            )
        named = cls(name)
        named.simulator = simulator
        return named


def load_simulator(source: str) -> GPTfluenceSimulator:
    """Load a simulator from a folder or the Hub; one that is in memory is taken as it is.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if isinstance(source, OpenSimulator):
        return source.simulator
    kind = "folder" if Path(source).exists() else "folder or Hub id"
    try:
        model, loading = GPTfluenceSimulator.from_pretrained(source, output_loading_info=True)
    except Exception as error:  # what is no model fails in many ways, each an exception of another library
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{source}: not a {kind} with a GPTfluence simulator ({reason})") from error
    for what in ("missing_keys", "unexpected_keys"):
        if loading[what]:
            difference = "lack" if what == "missing_keys" else "have unknown"
            names = ", ".join(sorted(loading[what]))
            raise DataError(f"{source}: not a {kind} with a GPTfluence simulator (its weights {difference} {names})")
    return model.eval()


def method_name(model: GPTfluenceSimulator) -> str:
    """`memory_<encoder>`, or `markov_<order>` and what differs from the paper: kind, projection, encoder."""
    config = model.config
    return name_of(config, config.encoder.get("encoder", ""))


def name_of(config: GPTfluenceConfig | TrainSettings, encoder: str) -> str:
    """The method's name, from a configuration or training settings and the encoder's name."""
    return kind_named(config.dynamics).method_name(config, encoder)


def simulated_of(model: GPTfluenceSimulator, source: str | None, runs: Dynamics) -> Simulated:
    """A simulator, or the part of one of several that is of the runs' config and metric.

    Raises:
        SettingsError: it was trained for something else than these runs; the message names both.
    """
    if model.config.parts:
        try:
            model = model.part(runs.config, runs.metric)
        except ValueError as error:
            raise SettingsError(f"{source} does not fit the data ({error})") from error
    method = Simulated(model, source)
    method.check(runs)
    return method


class Simulated:
    """Predictions of a simulator for runs of the config it was trained on.

    Args:
        simulator: the model.
        source: where it was loaded from, or None.
    """

    def __init__(self, simulator: GPTfluenceSimulator, source: str | None = None) -> None:
        self.simulator = simulator
        self.model = source
        self.name = method_name(simulator)
        self.history = simulator.history

    def check(self, runs: Dynamics) -> None:
        """Raise SettingsError if the model was trained for something else than these runs."""
        config = self.simulator.config
        mine = {
            "config": config.dataset_config,
            "metric": config.metric,
            "base model": f"{config.base_model} {config.base_revision}",
        }
        theirs = {
            "config": runs.config,
            "metric": runs.metric,
            "base model": f"{runs.base_model} {runs.base_revision}",
        }
        differ = [f"{key}: model {mine[key]}, data {theirs[key]}" for key in mine if mine[key] != theirs[key]]
        rules = config.token_rule, runs.token_rule
        if all(rules) and rules[0] != rules[1]:
            differ.append("tokens and targets: made of the texts in another way")
        if self.history >= len(runs.step):
            differ.append(f"values: model needs {self.history} to begin with, data {len(runs.step)} in a run")
        if differ:
            raise SettingsError(f"{self.model or self.name} does not fit the data ({'; '.join(differ)})")

    def coverage(self, runs: Dynamics, history: int, level: float = 0.9) -> Coverage | None:
        """How often runs lie inside the band of this level, after the first `history` values; None without a band."""
        model = self.simulator
        if model.config.calibration_runs / (model.config.calibration_runs + 1) < level:
            return None
        low, high = model.band(self._trajectories(runs), model.places(runs.test), level)
        counted = torch.from_numpy(runs.step[history:])
        return coverage(runs.values[..., history:], low[..., counted].numpy(), high[..., counted].numpy())

    def _examples(self, runs: Dynamics) -> EncodedExamples:
        """The examples of runs; of new ones, recorded kernels serve before others are made."""
        model = self.simulator
        new = {content_key(each) for each in runs.pool} - set(model.config.pool_keys)
        if kind_of(model.config).has_kernels and (new or bool((model.places(runs.test) < 0).any())):
            with suppress(DataError):
                return recorded_examples(model, runs)
        return model.encode(runs.pool, runs.test)

    def predict(self, runs: Dynamics) -> np.ndarray:
        """Trajectories `[R, M, S]` at the measured steps."""
        return self._trajectories(runs)[..., torch.from_numpy(runs.step)].numpy()

    def _trajectories(self, runs: Dynamics) -> torch.Tensor:
        """Trajectories `[R, M, T + 1]`."""
        self.check(runs)
        shares = visit_shares(runs.curricula, [example.id for example in runs.pool])
        history = torch.from_numpy(runs.values[..., : self.history])
        rates = torch.from_numpy(runs.learning_rate).float()
        inputs = SimulationInputs(shares, rates, self._examples(runs), history)
        with torch.no_grad():
            values: torch.Tensor = self.simulator.dynamics.trajectories(inputs)
        return values
