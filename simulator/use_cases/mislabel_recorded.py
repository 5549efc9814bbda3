"""Wrong labels in the pool of recorded runs: from the texts and kernels that were recorded, with no new training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.gradient_reading import has_products
from gptdynamics.dataset.reading import local_root
from gptdynamics.dataset.recorded import config_task
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from simulator.model.example_encoding import content_key
from simulator.settings.use_cases import KERNEL_HARM, MislabelSettings
from simulator.training.reference_kernels import recorded_kernels
from simulator.use_cases.mislabel_scores import prompt_vectors
from simulator.use_cases.mislabel_signals import Signal, ridge_signal

# Targets of a task that declares no labels are taken for labels if they are at most so many, each of so many rows.
MOST_LABELS, ROWS_EACH = 20, 4


@dataclass(frozen=True)
class RecordedSearch:
    """The pool of recorded runs, and what there is to search it with.

    Attributes:
        settings: what was asked.
        runs: as they were recorded.
        pool: the examples to search.
        kernels: runs that recorded kernels.
        unlabelled: why targets cannot be compared as labels; empty: they can.
    """

    settings: MislabelSettings
    runs: Dynamics
    pool: list[Example]
    kernels: tuple[str, ...]
    unlabelled: str

    def __str__(self) -> str:
        by = [] if self.unlabelled else ["their texts"]
        by += [f"kernels ({', '.join(self.kernels)})"] if self.kernels else []
        return f"{self.runs.config}: {len(self.pool)} rows are searched by {' and '.join(by)}, with no new training"

    def signals(self) -> tuple[list[Signal], tuple[str, ...]]:
        """What orders the rows, and the likelier label of each; none where there are no labels."""
        signals: list[Signal] = []
        likelier: tuple[str, ...] = ()
        if not self.unlabelled:
            vectors = prompt_vectors(self.pool, self.runs.base_model)
            ridge, likelier = ridge_signal(vectors, [each.target for each in self.pool])
            signals.append(ridge)
        if self.kernels:
            products = [recorded_kernels(self.runs, run).products for run in self.kernels]
            harm = kernel_harm(products, self.runs.pool, self.runs.test)[: len(self.pool)]
            signals.append(Signal(KERNEL_HARM, "recorded gradients", harm))
        return signals, likelier


def open_recorded(settings: MislabelSettings) -> RecordedSearch:
    """See what the runs of a recorded config have to search their pool with.

    Raises:
        GPTDynamicsError: they are missing or damaged, say nothing of labels, or trainings are asked for.
    """
    assert settings.config is not None
    given = [name for name in ("learning_rate", "batch_size", "epochs") if getattr(settings, name) is not None]
    if settings.flip or given:
        option = "flip" if settings.flip else given[0].replace("_", "-")
        raise SettingsError(f"{settings.config} was recorded and is not trained again here: leave out --{option}")
    runs = read_dynamics(settings.dataset, settings.config, "loss")
    pool = runs.pool[: settings.rows]
    if settings.rows is not None and settings.rows > len(pool):
        raise SettingsError(f"{settings.config} has {len(pool)} rows of its own: give --pool {len(pool)}")
    kernels = tuple(run for run in runs.runs if has_products(runs.source, runs.config, run))
    folder = DatasetFolder(local_root(settings.dataset))
    why = _unlabelled(pool, getattr(config_task(folder, settings.config), "labels", ()))
    if why and not kernels:
        raise SettingsError(
            f"{settings.config}: {why}, and no run has kernels, so nothing speaks of wrong labels. Record with "
            "kernels=True; influence and what-if can be asked"
        )
    return RecordedSearch(settings, runs, pool, kernels, why)


def _unlabelled(pool: Sequence[Example], labels: Sequence[str]) -> str:
    """Why targets cannot be compared as labels; empty: they can."""
    if any(example.withheld for example in pool):
        return "its rows have no texts here"
    targets = {example.target for example in pool}
    if len(targets) < 2:
        return f"all {len(pool)} rows have the target {pool[0].target.strip()!r}"
    if not labels and (len(targets) > MOST_LABELS or len(targets) * ROWS_EACH > len(pool)):
        return f"the targets are {len(targets)} different texts of {len(pool)} rows and no labels"
    return ""


def kernel_harm(products: Sequence[np.ndarray], pool: Sequence[Example], test: Sequence[Example]) -> np.ndarray:
    """How far the gradient of each pool example points away from those of the test examples: `[N]`.

    A wrong label pulls rows like its own to the wrong side. Products of each checkpoint and test example are scaled to
    unit mean square; a test example that is the pool example itself does not count.

    Args:
        products: `[C, N, M]` of each run, at C checkpoints.
        pool: the N examples.
        test: the M examples.
    """
    keys = [content_key(each) for each in test]
    same = np.array([[key == content_key(each) for key in keys] for each in pool])
    agreement = np.zeros(len(pool))
    for each in products:
        others = np.where(same, 0.0, each)
        size = np.sqrt(np.square(others).mean(1, keepdims=True))
        agreement += (others / np.where(size > 0, size, 1.0)).mean((0, 2)) / len(products)
    return -agreement
