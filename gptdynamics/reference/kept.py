"""Kernels of repeated runs that are kept in the cache, and which of those asked for are missing."""

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
    """Products that were taken together. S steps, N pool and M test examples, which differ in their texts.

    Attributes:
        pool, test: keys of the examples; see `example_keys`.
        values: `[S, N, M]` float32.
        kernel: how they were projected.
        note: how the repeated run differs from the recorded one; None: it does not.
    """

    pool: list[str]
    test: list[str]
    values: np.ndarray
    kernel: RunKernel
    note: str | None


def example_keys(examples: Sequence[Example]) -> list[str]:
    """What each example's gradient depends on beside model and tokenizer: its texts, and how its task ends them."""
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
        # The base model is known by its revision: one and the same may be a folder here, and on the Hub elsewhere.
        settings_of_run = reference.settings.to_dict() | {"base_model": None}
        run = [settings_of_run, reference.run, reference.curriculum, reference.learning_rate]
        trained = [[example.id, key] for example, key in zip(pool, example_keys(pool), strict=True)]
        self._entries: Entries = KERNELS.entries(
            [reference.base_revision, run, trained, self.columns, self.seed, self.steps]
        )

    def add(self, part: KernelPart) -> None:
        """Keep products.

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

    def look_up(self, pool: Sequence[Example], test: Sequence[Example]) -> FoundKernels:
        """What is kept of the products of these examples."""
        return FoundKernels(self, pool, test, list(self._entries.load_all(self._read)))

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


class FoundKernels:
    """The products of some examples, as far as they were found.

    Args:
        kept: where they were looked up.
        pool, test: the examples.
        parts: what was found.
    """

    def __init__(
        self, kept: KeptKernels, pool: Sequence[Example], test: Sequence[Example], parts: list[KernelPart]
    ) -> None:
        self.kept, self.pool, self.test = kept, pool, test
        self._keys = example_keys(pool), example_keys(test)
        self._parts: list[KernelPart] = []
        self._known = np.zeros((len(pool), len(test)), dtype=bool)
        self._values = np.zeros((len(kept.steps), len(pool), len(test)), dtype=np.float32)
        for part in parts:
            self.fill(part)

    def fill(self, part: KernelPart) -> None:
        """Put in what a part has of these products."""
        (rows, their_rows), (columns, their_columns) = (
            _places(wanted, has) for wanted, has in zip(self._keys, (part.pool, part.test), strict=True)
        )
        # Earlier parts stay: two takings of one product may differ in rounding.
        if self._known[np.ix_(rows, columns)].all():
            return
        there = self._known[np.ix_(rows, columns)]
        cells = np.ix_(range(len(self.kept.steps)), rows, columns)
        theirs = part.values[np.ix_(range(len(self.kept.steps)), their_rows, their_columns)]
        self._values[cells] = np.where(there, self._values[cells], theirs)
        self._known[np.ix_(rows, columns)] = True
        self._parts.append(part)

    @property
    def missing_pool(self) -> list[Example]:
        """Pool examples, each text once, whose products with `missing_test` fill what is missing; often none."""
        return _first_of_each(self.pool, self._keys[0], self._known.all(axis=1))

    @property
    def missing_test(self) -> list[Example]:
        """The test examples of these products."""
        return _first_of_each(self.test, self._keys[1], self._known.all(axis=0))

    @property
    def notes(self) -> list[str]:
        """How repetitions that the products are of differed from the recorded run."""
        return list(dict.fromkeys(part.note for part in self._parts if part.note is not None))

    def products(self) -> GradientProducts:
        """The products of all these examples; nothing may be missing."""
        checkpoints = []
        for index, step in enumerate(self.kept.steps):
            each = [part.kernel.checkpoints[index] for part in self._parts]
            names = dict.fromkeys(name for one in each for name in one.not_covered)
            worst = max(one.error for one in each)
            checkpoints.append(KernelCheckpoint(step, worst, min(one.covered for one in each), tuple(names)))
        return GradientProducts(
            np.array(self.kept.steps),
            [example.id for example in self.pool],
            [example.id for example in self.test],
            self._values,
            RunKernel(self.kept.columns, self.kept.seed, tuple(checkpoints)),
        )


def _places(wanted: list[str], has: list[str]) -> tuple[list[int], list[int]]:
    """Indices in `wanted` of keys that `has` has, and where it has them."""
    place = {key: index for index, key in enumerate(has)}
    found = [index for index, key in enumerate(wanted) if key in place]
    return found, [place[wanted[index]] for index in found]


def _first_of_each(examples: Sequence[Example], keys: list[str], known: Any) -> list[Example]:
    """Examples that are not known, the first of each key; `known` is an array with one truth value for each."""
    chosen: dict[str, Example] = {}
    for example, key, is_known in zip(examples, keys, known.tolist(), strict=True):
        if not is_known:
            chosen.setdefault(key, example)
    return list(chosen.values())
