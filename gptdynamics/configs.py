"""Config names, the settings of a run, and the splits runs fall into."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gptdynamics.errors import SettingsError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# Learning rates of table 7 for Pythia-410m, and ours for nano. Nano's were chosen by what its runs
# look like, before any simulator was fitted: see docs/learning-rates.md.
LEARNING_RATES: dict[str, dict[str, float]] = {
    "410m": {"sst2": 5e-7, "rte": 5e-7, "boolq": 5e-7, "webnlg": 1e-6, "wmt16": 5e-7},
    "nano": {"rte": 1e-4, "webnlg": 1e-3, "mini_sentiment": 5e-4, "mini_triples": 5e-4},
}


def split_of(index: int) -> Split:
    """Which split run `index` belongs to: 25 / 2 / 5 of every 32; adding runs never moves one."""
    if index % 32 in (4, 10, 16, 22, 28):
        return "test"
    return "validation" if index % 32 in (3, 19) else "train"


def run_name(index: int) -> str:
    """The name of run `index` within its config: `0007`."""
    return f"{index:04d}"


def config_parts(config: str) -> tuple[str, str]:
    """Split a config name `<task>_<size>` at its last underscore.

    Raises:
        SettingsError: the name has no size, or characters that may not stand in a file name.
    """
    task, _, size = config.rpartition("_")
    if not task or not size or not _NAME.fullmatch(config):
        raise SettingsError(f"config {config!r} is not of the form <task>_<size>, e.g. rte_nano")
    return task, size


@dataclass(frozen=True)
class RunSettings:
    """Everything that, with a run's index, determines the run. The defaults are the paper's table 7.

    Attributes:
        config: `<task>_<size>`.
        learning_rate: at the first update; it falls linearly to zero at the last.
        seed: of the config; run k derives its own from it.
        pool_size: the pool is the first rows of the task's train split.
        subset: examples of the pool that one run trains on.
        batch_size: examples in one update.
        epochs: passes over the subset.
        steps: updates; the curriculum is cut there. None: all of them.
        test_examples: the test set is the first rows of the task's eval split.
        eval_every: updates between measurements of loss and accuracy.
        generate_every: updates between measurements of BLEU and ROUGE-L.
        base_model: a known size, a Hub id or a folder. None: the config's size.
        weight_decay, beta1, beta2, epsilon: AdamW.
        max_length: longer inputs are cut from the left of the prompt.
        temperature, top_p: of sampled text.
    """

    config: str
    learning_rate: float
    seed: int = 0
    pool_size: int = 200
    subset: int = 128
    batch_size: int = 4
    epochs: int = 3
    steps: int | None = None
    test_examples: int = 200
    eval_every: int = 1
    generate_every: int = 1
    base_model: str | None = None
    weight_decay: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    max_length: int = 2048
    temperature: float = 0.2
    top_p: float = 0.95

    def __post_init__(self) -> None:
        config_parts(self.config)
        for name in (
            "pool_size",
            "subset",
            "batch_size",
            "epochs",
            "test_examples",
            "eval_every",
            "generate_every",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"learning_rate={self.learning_rate} must be above 0 and finite")
        if self.subset > self.pool_size:
            raise SettingsError(f"subset={self.subset} is larger than pool_size={self.pool_size}")
        if self.batch_size > self.subset:
            raise SettingsError(f"batch_size={self.batch_size} is larger than subset={self.subset}")
        if self.steps is not None and not 1 <= self.steps <= self.all_steps:
            raise SettingsError(
                f"steps={self.steps} must be between 1 and the {self.all_steps} that "
                f"{self.epochs} epochs of {self.subset} examples in batches of {self.batch_size} give"
            )
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise SettingsError("temperature must be above 0 and top_p in (0, 1]")

    @property
    def task(self) -> str:
        """Task part of the config name."""
        return config_parts(self.config)[0]

    @property
    def base(self) -> str:
        """What names the base model: `base_model`, or the size part of the config name."""
        return self.base_model or config_parts(self.config)[1]

    @property
    def all_steps(self) -> int:
        """Updates in `epochs` passes; an incomplete last batch of an epoch is left out."""
        return self.epochs * (self.subset // self.batch_size)

    @property
    def run_steps(self) -> int:
        """Updates in one run."""
        return self.all_steps if self.steps is None else self.steps

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return asdict(self)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Settings in which a saved manifest differs: `name: theirs here, ours now`."""
        mine = self.to_dict()
        return [
            f"{name}: {other.get(name)!r} there, {mine.get(name)!r} now"
            for name in sorted(mine.keys() | other.keys())
            if mine.get(name) != other.get(name)
        ]


def default_learning_rate(config: str) -> float:
    """The learning rate that a config uses unless told otherwise.

    Raises:
        SettingsError: none is known for this task and size.
    """
    task, size = config_parts(config)
    rate = LEARNING_RATES.get(size, {}).get(task)
    if rate is None:
        raise SettingsError(f"no default learning rate for {config}: give --learning-rate")
    return rate
