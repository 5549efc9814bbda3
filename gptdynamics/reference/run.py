"""A run of a dataset with everything that is needed to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import Curriculum, linear_decay
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import kind_of
from gptdynamics.dataset.reading import folder_of_config, read_examples
from gptdynamics.dataset.run_files import read_run_row, read_trajectories, values_of
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.models.base_model import BaseModel, load_base_model
from gptdynamics.tasks.sources import ExampleSource, load_sources

INSTEAD = "record kernels while runs train (collect --kernels, or kernels= of the recorder), or use --dynamics memory"
# Number of test examples whose recorded losses a repeated run is compared with.
COMPARED = 8


class NotRepeatableError(DataError):
    """A run cannot be repeated here; the message says why, and what to do instead."""


@dataclass(frozen=True)
class RecordedLosses:
    """Recorded losses of a few test examples, to compare a repeated run with.

    Attributes:
        examples: K test examples.
        step: `[S]` steps at which they were measured.
        values: `[S][K]`.
    """

    examples: tuple[ExampleSource, ...]
    step: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ReferenceRun:
    """A run that can be repeated: on the same rows, in the same order, with the same random numbers.

    Attributes:
        settings: of the config.
        run: its name, which determines its seed.
        curriculum: `[T][batch]` pool ids.
        learning_rate: `[T]`, of each update.
        base_revision: of the base model that it started from.
        pool: sources of the rows that it trained on, by id in order.
        recorded: losses that a repeated run is compared with.
        data: folder with local rows, for texts that are not in `texts`; None: generated rows or the Hub.
        texts: examples whose texts are available, by part (`pool`, `test`) and id.
    """

    settings: RunSettings
    run: str
    curriculum: Curriculum
    learning_rate: list[float]
    base_revision: str
    pool: tuple[ExampleSource, ...]
    recorded: RecordedLosses
    data: Path | None = None
    texts: Mapping[tuple[str, int], Example] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, source: str | Path, config: str, run: str, data: Path | None = None) -> ReferenceRun:
        """A run of a dataset folder, a Hub id, or the short name.

        Args:
            source: the dataset.
            config: `<task>_<size>`.
            run: name of the run.
            data: folder with the local rows that it was trained on, if the dataset has no texts. None: generated rows
                or the Hub.

        Raises:
            SettingsError: there is no such run.
            DataError: a file is damaged.
            NotRepeatableError: it was recorded or imported.
        """
        source, folder = folder_of_config(source, config)
        finished = folder.finished(config)
        if run not in finished:
            existing = f"it has {finished[0]} to {finished[-1]}" if finished else "it has none"
            raise SettingsError(f"{source} has no run {run!r} of {config}; {existing}")
        settings = trained_settings(folder, config)
        row = read_run_row(folder.run_row_path(config, run), config, run)
        pool = {example.id: example for example in read_examples(folder, settings.task, "pool")}
        trained_ids = sorted({pool_id for batch in row["curriculum"] for pool_id in batch})
        missing = [pool_id for pool_id in trained_ids if pool_id not in pool]
        if missing:
            raise DataError(f"{folder.examples_path(settings.task, 'pool')}: pool example {missing[0]} is missing")
        compared, recorded = _recorded(folder, settings, run)
        examples = {("pool", pool_id): pool[pool_id] for pool_id in trained_ids}
        examples |= {("test", example.id): example for example in compared}
        return cls(
            settings=settings,
            run=run,
            curriculum=row["curriculum"],
            learning_rate=_exact_rates(row["learning_rate"], settings),
            base_revision=row["base_revision"],
            pool=tuple(ExampleSource.of(pool[pool_id]) for pool_id in trained_ids),
            recorded=recorded,
            data=data,
            texts={key: example for key, example in examples.items() if not example.withheld},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: everything but texts and their folder on this machine."""
        losses = self.recorded
        return {
            "settings": self.settings.to_dict(),
            "run": self.run,
            "curriculum": [list(batch) for batch in self.curriculum],
            "learning_rate": list(self.learning_rate),
            "base_revision": self.base_revision,
            "pool": [source.to_dict() for source in self.pool],
            "recorded": {
                "examples": [source.to_dict() for source in losses.examples],
                "step": list(losses.step),
                "values": [list(source) for source in losses.values],
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], data: Path | None = None) -> ReferenceRun:
        """From the result of `to_dict`; texts are loaded when they are needed.

        Args:
            values: the plain values.
            data: see `of`.

        Raises:
            DataError: a value is missing or damaged.
        """
        try:
            losses = values["recorded"]
            reference = cls(
                settings=RunSettings.from_dict(dict(values["settings"])),
                run=str(values["run"]),
                curriculum=[[int(pool_id) for pool_id in batch] for batch in values["curriculum"]],
                learning_rate=[float(rate) for rate in values["learning_rate"]],
                base_revision=str(values["base_revision"]),
                pool=tuple(ExampleSource.from_dict(source) for source in values["pool"]),
                recorded=RecordedLosses(
                    tuple(ExampleSource.from_dict(source) for source in losses["examples"]),
                    tuple(int(step) for step in losses["step"]),
                    tuple(tuple(float(value) for value in source) for source in losses["values"]),
                ),
                data=data,
            )
        except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as error:
            raise DataError(f"the stored reference run is damaged ({error}). Restore it") from error
        trained_ids = {pool_id for batch in reference.curriculum for pool_id in batch}
        if trained_ids != {source.id for source in reference.pool} or len(reference.learning_rate) != len(
            reference.curriculum
        ):
            raise DataError(
                "the stored reference run is damaged: its curriculum does not fit its rows or its learning rates. "
                "Restore it"
            )
        return reference

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"run {self.run} of {self.settings.config}"

    def load_pool(self) -> dict[int, Example]:
        """The examples that the run trained on, with their texts, by id.

        Raises:
            NotRepeatableError: texts are withheld, and cannot be loaded or have changed.
        """
        try:
            return self._load(self.pool, "pool")
        except GPTDynamicsError as error:
            raise NotRepeatableError(f"{self.label} cannot be repeated: {error}. Or {INSTEAD}") from error

    def load_compared(self) -> list[Example]:
        """The test examples of `recorded`, with their texts.

        Raises:
            DataError: texts are withheld, and cannot be loaded or have changed.
        """
        loaded = self._load(self.recorded.examples, "test")
        return [loaded[each.id] for each in self.recorded.examples]

    def _load(self, sources: Sequence[ExampleSource], part: str) -> dict[int, Example]:
        available = {source.id: self.texts[part, source.id] for source in sources if (part, source.id) in self.texts}
        missing = [source for source in sources if source.id not in available]
        return available | load_sources(missing, self.settings.task, part, self.data)

    def load_base(self, device: str = "cpu") -> BaseModel:
        """The base model that the run started from.

        Raises:
            SettingsError: it cannot be loaded.
            NotRepeatableError: it has another revision here.
        """
        return load_trained_base(self.settings.base, self.base_revision, self.label, device)


def load_trained_base(name: str, revision: str, label: str, device: str = "cpu") -> BaseModel:
    """The base model that runs started from.

    Args:
        name: of the base model.
        revision: that they started from.
        label: name of the runs in messages.
        device: see `load_base_model`.

    Raises:
        SettingsError: it cannot be loaded.
        NotRepeatableError: it has another revision here.
    """
    base = load_base_model(name, device)
    if base.revision != revision:
        raise NotRepeatableError(
            f"{label} cannot be repeated: it started from {name} {revision}, but here that is {base.revision}. "
            f"Get revision {revision}, or {INSTEAD}"
        )
    return base


def trained_settings(folder: DatasetFolder, config: str) -> RunSettings:
    """The settings that a config's runs were made with.

    Raises:
        DataError: the manifest is damaged.
        NotRepeatableError: the runs were recorded or imported, or there is no manifest.
    """
    path = folder.manifest_path(config)
    manifest = folder.manifest(config) if path.exists() else {"settings": {}}
    kind = kind_of(manifest)
    if kind != "collected":
        reasons = {
            "recorded": "was recorded from a training that only its owner can repeat",
            "imported": "was imported from a release that does not say how it was trained",
        }
        reason = reasons.get(kind or "", "has no manifest that says how it was trained")
        raise NotRepeatableError(f"{config} {reason}: its runs cannot be repeated. Instead, {INSTEAD}")
    try:
        return RunSettings.from_dict(manifest["settings"])
    except TypeError as error:
        raise DataError(f"{path}: settings of another version ({error}). Restore the file") from error


def _exact_rates(recorded: list[float], settings: RunSettings) -> list[float]:
    """The exact learning rates of a run, whose file has them rounded to 32 bits."""
    exact = linear_decay(settings.learning_rate, len(recorded))
    matches = np.array_equal(np.array(exact, dtype=np.float32), np.array(recorded, dtype=np.float32))
    return exact if matches else [float(rate) for rate in recorded]


def _recorded(folder: DatasetFolder, settings: RunSettings, run: str) -> tuple[list[Example], RecordedLosses]:
    """A few test examples, evenly spread, and their losses at every measured step."""
    path = folder.run_path(settings.config, run)
    table = read_trajectories(path, run, ["step", "loss"])
    step, values = values_of(table, path, "loss", "step")
    ids = table["test_id"].to_pylist()
    examples_by_id = {example.id: example for example in read_examples(folder, settings.task, "test")}
    places = sorted({round(index * (len(ids) - 1) / (COMPARED - 1)) for index in range(COMPARED)})
    examples = [examples_by_id[ids[place]] for place in places if ids[place] in examples_by_id]
    places = [place for place in places if ids[place] in examples_by_id]
    losses = tuple(tuple(float(value) for value in values[places, index]) for index in range(len(step)))
    return examples, RecordedLosses(tuple(map(ExampleSource.of, examples)), tuple(step.tolist()), losses)
