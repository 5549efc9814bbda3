"""What a search for wrong labels works on: the rows, and settings of trainings that fit them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder
from gptdynamics.dataset.reading import is_recorded, local_root, only_config, read_examples
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.reference.run import trained_settings
from gptdynamics.tasks import get_task, load_examples
from gptdynamics.tasks.loading import count_rows
from simulator.settings.use_cases import MislabelSettings, check_label_task
from simulator.use_cases.mislabel_recorded import RecordedSearch, open_recorded

# Measurements of the pool in a run that the dynamics are made of, besides the first.
MEASURED = 4
# The defaults, at most.
ROWS, TESTS = 1000, 872
# With fewer updates in an epoch, batches have so many examples.
FEW_UPDATES, SMALL_BATCH = 8, 4


@dataclass(frozen=True)
class Search:
    """Everything that `MislabelSettings` leave to the rows.

    Attributes:
        settings: as they were given.
        pool: the examples to search, as they are labelled.
        test: with `flip`: those that the accuracy after correction is measured on.
        runs: settings of the runs that the dynamics are made of.
    """

    settings: MislabelSettings
    pool: list[Example]
    test: list[Example]
    runs: RunSettings

    @property
    def whole(self) -> RunSettings:
        """Settings of trainings on the whole pool, measured before and after."""
        settings = replace(self.runs, subset=len(self.pool), test_examples=max(1, len(self.test)))
        return replace(settings, eval_every=settings.run_steps)

    def __str__(self) -> str:
        runs = self.runs
        return (
            f"{self.settings.task}: {len(self.pool)} rows are searched (--pool) with {self.settings.runs} runs "
            f"(--runs) on {runs.subset} of them each: {runs.run_steps} updates (batch {runs.batch_size}, "
            f"{runs.epochs} epochs, learning rate {runs.learning_rate:g})"
        )


def open_search(settings: MislabelSettings) -> Search | RecordedSearch:
    """Load the rows, and fill settings that were not given with what fits the rows.

    Raises:
        GPTDynamicsError: rows cannot be had, are too few or all have one label, or runs like those of the config
            cannot be made; of recorded runs as of `open_recorded`.
    """
    if settings.of_dataset:
        settings = replace(settings, config=settings.config or only_config(settings.dataset))
        if is_recorded(settings.dataset, settings.config or ""):
            return open_recorded(settings)
    pool, test, base = _of_task(settings) if settings.config is None else _of_config(settings)
    half = len(pool) // 2
    names = ("base_model", "learning_rate", "batch_size", "epochs")
    changes: dict[str, Any] = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    if settings.batch_size is None and half // base.batch_size < FEW_UPDATES:
        changes["batch_size"] = min(base.batch_size, SMALL_BATCH)
    batch = changes.get("batch_size", base.batch_size)
    if half < batch:
        raise SettingsError(
            f"{len(pool)} rows are too few: each run is on half of them, which must fill a batch of {batch}. "
            f"Give {2 * batch} rows, or a smaller --batch-size"
        )
    if len({example.target for example in pool}) < 2:
        raise SettingsError(f"all {len(pool)} rows have the label {pool[0].target!r}: no other says that one is wrong")
    changes |= {"seed": settings.seed, "pool_size": len(pool), "subset": half, "test_examples": len(pool)}
    runs = replace(base, **changes)
    return Search(settings, pool, test, replace(runs, eval_every=max(1, runs.run_steps // MEASURED)))


def _of_task(settings: MislabelSettings) -> tuple[list[Example], list[Example], RunSettings]:
    """Rows of a task, and the usual settings."""
    task = get_task(settings.task)

    def load(part: str, requested: int | None, most: int) -> list[Example]:
        available = count_rows(task, part, settings.data)
        count = requested or (most if available is None else min(most, available))
        return load_examples(task, part, max(1, count), settings.data)

    pool = load("pool", settings.rows, ROWS)
    test = load("test", settings.test_examples, TESTS) if settings.flip else []
    base = RunSettings(f"{settings.task}_mislabel", learning_rate=1e-3, batch_size=16, base_model="nano")
    return pool, test, base


def _of_config(settings: MislabelSettings) -> tuple[list[Example], list[Example], RunSettings]:
    """Pool and test set of a config of a dataset, and settings of runs like its own."""
    assert settings.config is not None
    folder = DatasetFolder(local_root(settings.dataset))
    if settings.config not in folder.configs():
        available = ", ".join(folder.configs()) or "none"
        raise SettingsError(f"{settings.dataset} has no config {settings.config!r}; it has: {available}")
    check_label_task(settings.task)
    trained = trained_settings(folder, settings.config)
    pool = [each for each in read_examples(folder, settings.task, "pool") if each.id in trained.pool_ids]
    test = read_examples(folder, settings.task, "test") if settings.flip else []
    for name, examples, requested in (("pool", pool, settings.rows), ("test-examples", test, settings.test_examples)):
        if examples and requested is not None and requested > len(examples):
            raise SettingsError(f"{settings.config} has {len(examples)} rows of its own: give --{name} {len(examples)}")
    for example in (*pool, *test):
        if example.withheld:
            raise DataError(example.withheld_message)
    name = f"{settings.task}_mislabel"
    base = replace(
        trained, config=name, base_model=trained.base, gradients="none", steps=None, counterfactual_every=None
    )
    return pool[: settings.rows or ROWS], test[: settings.test_examples or TESTS], base
