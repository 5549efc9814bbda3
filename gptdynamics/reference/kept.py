"""Kernels of repeated runs that are stored in the cache, and those of requested examples that are missing there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.cache import KERNELS, Entries
from gptdynamics.dataset.gradient_reading import GradientProducts
from gptdynamics.examples import Example
from gptdynamics.reference.run import ReferenceRun
from gptdynamics.runs.run import KernelCheckpoint, RunKernel
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks import generates
from gptdynamics.tensor_files import read_tensors, write_tensors

_NAME = "kernels"


@dataclass(frozen=True)
class KernelPart:
    """Products that were computed together. S steps, N pool and M test examples with different texts.

    Attributes:
        pool, test: keys of the examples; see `example_keys`.
        values: `[S, N, M]` float32.
        kernel: how they were projected.
        note: how the repeated run differs from the recorded one; None if it does not.
    """

    pool: list[str]
    test: list[str]
    values: np.ndarray
    kernel: RunKernel
    note: str | None


def example_keys(examples: Sequence[Example]) -> list[str]:
    """For each example, what its gradient depends on besides the model: its texts, and how its task ends them."""
    return [f"{'text' if generates(example) else 'label'}/{example.digest}" for example in examples]


class KeptKernels:
    """The kernels of one run at some steps, with one projection.

    Args:
        reference: the run.
        pool: the examples that it trained on, with their texts.
        settings: columns and seed of the projection.
        steps: of the run.
    """

    def __init__(
        self, reference: ReferenceRun, pool: Sequence[Example], settings: KernelSettings, steps: Sequence[int]
    ) -> None:
        self.columns, self.seed = settings.columns, settings.seed
        self.steps = list(steps)
        # The revision identifies the base model: one model may be a folder here and on the Hub elsewhere.
        settings_of_run = reference.settings.to_dict() | {"base_model": None}
        run = [settings_of_run, reference.run, reference.curriculum, reference.learning_rate]
        trained = [[example.id, key] for example, key in zip(pool, example_keys(pool), strict=True)]
        self._entries: Entries = KERNELS.entries(
            [reference.base_revision, run, trained, self.columns, self.seed, self.steps]
        )

    def add(self, part: KernelPart) -> None:
        """Store products in the cache.

        Raises:
            DataError: they cannot be written.
        """
        checkpoints = part.kernel.checkpoints
        arrays = {
            "values": part.values,
            "error": np.array([each.error for each in checkpoints]),
            "covered": np.array([each.covered for each in checkpoints]),
        }
        not_covered = [list(each.not_covered) for each in checkpoints]
        plain = {"pool": part.pool, "test": part.test, "not_covered": not_covered, "note": part.note}
        self._entries.save([part.pool, part.test], lambda path: write_tensors(path, arrays, plain, _NAME))

    def look_up(self, pool: Sequence[Example], test: Sequence[Example]) -> CachedKernels:
        """The products of these examples, as far as they are in the cache."""
        return CachedKernels(self, pool, test, list(self._entries.load_all(self._read)))

    def _read(self, path: Path) -> KernelPart:
        arrays, plain = read_tensors(path, _NAME)
        values = arrays["values"]
        if values.shape != (len(self.steps), len(plain["pool"]), len(plain["test"])):
            raise ValueError(f"its products have the shape {values.shape}")
        checkpoints = tuple(
            KernelCheckpoint(step, float(error), float(covered), tuple(names))
            for step, error, covered, names in zip(
                self.steps, arrays["error"], arrays["covered"], plain["not_covered"], strict=True
            )
        )
        return KernelPart(
            plain["pool"], plain["test"], values, RunKernel(self.columns, self.seed, checkpoints), plain["note"]
        )


class CachedKernels:
    """The products of some examples, as far as they were found.

    Args:
        kept: the kernels in which they were looked up.
        pool, test: the examples.
        parts: the parts that were found.
    """

    def __init__(
        self, kept: KeptKernels, pool: Sequence[Example], test: Sequence[Example], parts: list[KernelPart]
    ) -> None:
        self.kept, self.pool, self.test = kept, pool, test
        self._keys = example_keys(pool), example_keys(test)
        self._parts: list[KernelPart] = []
        self._is_known = np.zeros((len(pool), len(test)), dtype=bool)
        self._values = np.zeros((len(kept.steps), len(pool), len(test)), dtype=np.float32)
        for part in parts:
            self.fill(part)

    def fill(self, part: KernelPart) -> None:
        """Add the products of a part."""
        (rows, part_rows), (columns, part_columns) = (
            _places(wanted_keys, part_keys)
            for wanted_keys, part_keys in zip(self._keys, (part.pool, part.test), strict=True)
        )
        # Earlier parts take precedence, because one product computed twice may differ by rounding.
        if self._is_known[np.ix_(rows, columns)].all():
            return
        is_known = self._is_known[np.ix_(rows, columns)]
        cells = np.ix_(range(len(self.kept.steps)), rows, columns)
        part_values = part.values[np.ix_(range(len(self.kept.steps)), part_rows, part_columns)]
        self._values[cells] = np.where(is_known, self._values[cells], part_values)
        self._is_known[np.ix_(rows, columns)] = True
        self._parts.append(part)

    @property
    def missing_pool(self) -> list[Example]:
        """Pool examples, each text once, whose products with `missing_test` are missing; often none."""
        return _first_of_each(self.pool, self._keys[0], self._is_known.all(axis=1))

    @property
    def missing_test(self) -> list[Example]:
        """The test examples of these products."""
        return _first_of_each(self.test, self._keys[1], self._is_known.all(axis=0))

    @property
    def notes(self) -> list[str]:
        """How the repeated runs of these products differ from the recorded run."""
        return list(dict.fromkeys(part.note for part in self._parts if part.note is not None))

    def products(self) -> GradientProducts:
        """The products of all these examples; nothing may be missing."""
        checkpoints = []
        for index, step in enumerate(self.kept.steps):
            checkpoints_of_parts = [part.kernel.checkpoints[index] for part in self._parts]
            names = dict.fromkeys(name for checkpoint in checkpoints_of_parts for name in checkpoint.not_covered)
            worst = max(checkpoint.error for checkpoint in checkpoints_of_parts)
            checkpoints.append(
                KernelCheckpoint(
                    step, worst, min(checkpoint.covered for checkpoint in checkpoints_of_parts), tuple(names)
                )
            )
        return GradientProducts(
            np.array(self.kept.steps),
            [example.id for example in self.pool],
            [example.id for example in self.test],
            self._values,
            RunKernel(self.kept.columns, self.kept.seed, tuple(checkpoints)),
        )


def _places(wanted_keys: list[str], available_keys: list[str]) -> tuple[list[int], list[int]]:
    """Indices in `wanted_keys` of the available keys, and their indices in `available_keys`."""
    place = {key: index for index, key in enumerate(available_keys)}
    cached_rows = [index for index, key in enumerate(wanted_keys) if key in place]
    return cached_rows, [place[wanted_keys[index]] for index in cached_rows]


def _first_of_each(examples: Sequence[Example], keys: list[str], is_known: Any) -> list[Example]:
    """The examples for which `is_known`, an array with one truth value for each, is false; the first of each key."""
    chosen: dict[str, Example] = {}
    for example, key, complete in zip(examples, keys, is_known.tolist(), strict=True):
        if not complete:
            chosen.setdefault(key, example)
    return list(chosen.values())
