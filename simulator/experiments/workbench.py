"""What experiments share: the runs of a dataset, simulators and evaluations, each made once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from gptdynamics.cache import file_digest
from gptdynamics.configs import config_parts, split_of
from gptdynamics.dataset import DatasetFolder, Dynamics, metrics_of, read_dynamics
from gptdynamics.dataset.reading import local_root
from gptdynamics.dataset.recorded import config_task
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.tasks.mixture import Mixture
from simulator.baselines import MeanCurve
from simulator.evaluation import EvaluateSettings, Evaluation, evaluate
from simulator.evaluation.scoring import Scores, score_prediction, undefined_scores
from simulator.reporting.result import Result
from simulator.training import TrainSettings, train_simulator
from simulator.training.fitting import fitter_named
from simulator.training.trained import Trained

# The bundled base model: what is measured on another says more.
TOY = "nano"
Scenario = Literal["finetune", "instruct"]
# What training raises where a dataset or this machine lacks something: runs, texts, a base model, an encoder.
UNTRAINABLE = (GPTDynamicsError, ImportError, OSError)


@dataclass
class Workbench:
    """A dataset, and everything that was made of it so far.

    Attributes:
        dataset: folder or Hub id.
        only: configs to look at; none: all.
        exact: whether exact first-order effects are computed, too: minutes for each run that was made again.
    """

    dataset: str
    only: tuple[str, ...] = ()
    on_phase: Callable[[str, int], None] = lambda name, total: None
    on_progress: Callable[[], None] = lambda: None
    exact: bool = False
    _runs: dict[tuple[str, str, bool, bool], Dynamics] = field(default_factory=dict)
    _evaluations: dict[tuple[str, str], Evaluation] = field(default_factory=dict)
    _trained: dict[TrainSettings, Trained] = field(default_factory=dict)

    @cached_property
    def folder(self) -> DatasetFolder:
        """The dataset's files."""
        return DatasetFolder(local_root(self.dataset))

    @cached_property
    def data(self) -> str:
        """What tells its runs from others: a hash of names and contents of the dataset's files."""
        whole = hashlib.sha256()
        for path in sorted(self.folder.root.glob("data/*/*.parquet")):
            whole.update(f"{path.relative_to(self.folder.root).as_posix()} {file_digest(path)}\n".encode())
        return whole.hexdigest()[:16]

    def configs(self, scenario: Scenario | None = None) -> tuple[list[str], list[str]]:
        """Configs that can be evaluated, those on `nano` last, and the reasons why others cannot.

        Args:
            scenario: only those of it; None: of both.

        Raises:
            SettingsError: a config of `only` is not in the dataset.
        """
        configs = self.folder.configs()
        unknown = [config for config in self.only if config not in configs]
        if unknown or not configs:
            wanted = f"no config {unknown[0]!r}; it has" if unknown else "no runs; it has configs"
            raise SettingsError(f"{self.dataset} has {wanted}: {', '.join(configs) or 'none'}")
        usable, reasons = [], []
        for config in configs:
            if self.only and config not in self.only:
                continue
            mixture = isinstance(config_task(self.folder, config), Mixture)
            if scenario is not None and mixture != (scenario == "instruct"):
                continue
            splits = {split_of(run) for run in self.folder.finished(config)}
            missing = [split for split in ("train", "validation", "test") if split not in splits]
            if missing:
                reasons.append(f"{config}: no {' and no '.join(missing)} runs; collect at least 6")
            else:
                usable.append(config)
        return sorted(usable, key=lambda config: config_parts(config)[1] == TOY), reasons

    def begin(self, scenario: Scenario | None = None) -> tuple[Result, list[str]]:
        """An empty result that says which configs cannot be evaluated, and those that can."""
        configs, reasons = self.configs(scenario)
        return Result(skipped=reasons), configs

    def continuous_metrics(self, config: str) -> list[str]:
        """The metrics of a config that take more than two values."""
        return [metric for metric in self.metrics(config) if not self.runs(config, metric).definition.binary]

    def metrics(self, config: str) -> list[str]:
        """What was measured in the runs of a config."""
        return metrics_of(self.dataset, config)

    def runs(self, config: str, metric: str = "loss", unseen: bool = False, counterfactual: bool = False) -> Dynamics:
        """Runs of a config; with `unseen`, those on unseen pool rows among them; with `counterfactual`, those made
        again with rows left out."""
        key = (config, metric, unseen, counterfactual)
        if key not in self._runs:
            self._runs[key] = read_dynamics(self.dataset, config, metric, unseen, counterfactual)
        return self._runs[key]

    def evaluation(self, config: str, metric: str) -> Evaluation:
        """Every method on the held-out runs of a config."""
        key = (config, metric)
        if key not in self._evaluations:
            settings = EvaluateSettings(self.dataset, config, metric)
            on_phase = self._named(f"{config} {metric}")
            self._evaluations[key] = evaluate(settings, on_phase, self.on_progress, self.trained)
        return self._evaluations[key]

    def trained(self, settings: TrainSettings, runs: Dynamics | None = None) -> Trained:
        """A simulator.

        Args:
            settings: what to train, of one config and metric.
            runs: other runs than the dataset's; then it is not kept.
        """
        # No experiment looks at bands.
        settings = replace(settings, bands=False)
        config, metric = settings.configs[0], settings.metrics[0]
        on_phase = self._named(f"{config} {metric}")
        if runs is not None:
            return train_simulator(settings, on_phase, self.on_progress, runs=runs)
        if settings not in self._trained:
            read = self.runs(config, metric)
            self._trained[settings] = train_simulator(settings, on_phase, self.on_progress, runs=read)
        return self._trained[settings]

    def settings(self, config: str, metric: str, dynamics: str, encoder: str) -> TrainSettings:
        """What to train on a config of this dataset."""
        return TrainSettings(self.dataset, config, metric, dynamics, encoder)

    def like_tuned(self, settings: TrainSettings, **changes: Any) -> TrainSettings:
        """The same with changes; of markov with the learning rate, penalty and width that are best without them."""
        chosen = self.trained(settings).choice if not fitter_named(settings.dynamics).has_closed_form else {}
        return replace(settings, **chosen, **changes)

    def parameters(self, config: str) -> int:
        """Number of weights of a config's base model.

        Raises:
            SettingsError: the base model cannot be loaded.
        """
        from gptdynamics.models.base_model import load_base_model

        return int(load_base_model(self.runs(config).base_model).model.num_parameters())

    def _named(self, what: str) -> Callable[[str, int], None]:
        return lambda phase, total: self.on_phase(f"{what}: {phase}", total)


def score_part(
    predicted: np.ndarray | None, runs: Dynamics, seen: Dynamics, history: int, tests: list[int] | None = None
) -> Scores:
    """The scores of one method.

    Args:
        predicted: `[R, M, S]`, or None where there is no prediction.
        runs: held-out runs.
        seen: training and validation runs, for the reference of skill.
        history: first values that are not scored.
        tests: indices of the test examples that are scored; default: all.
    """
    tests = list(range(len(runs.test))) if tests is None else tests
    truth = runs.values[:, tests]
    if predicted is None:
        return undefined_scores(truth, history)
    return score_prediction(predicted[:, tests], truth, MeanCurve(seen).predict(runs)[:, tests], history)
