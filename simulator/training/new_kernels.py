"""Kernels of examples that a tangent simulator does not know: its reference runs are made again for them.

A simulator carries the plan entries of its reference runs and the sources of its pool and test examples, so that it
needs neither the dataset nor its texts, only the base model and the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptdynamics.configs import config_parts
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.reference import NotRepeatableError, ReferenceRun, reference_kernels
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks.sources import ExampleSource, load_sources
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.example_encoding import content_key
from simulator.training.reference_kernels import (
    ReferenceKernels,
    mean_of_references,
    parts_as_fitted,
    shares_as_fitted,
)


def reference_record(runs: Dynamics, reference: ReferenceKernels) -> dict[str, Any]:
    """What a simulator carries of a reference run: its checkpoints, and how it is made again, where it can be."""
    record: dict[str, Any] = {"run": reference.run, "step": reference.step.tolist()}
    if reference.kernel is not None:
        record |= {"columns": reference.kernel.columns, "seed": reference.kernel.seed}
    try:
        record["plan_entry"] = ReferenceRun.of(runs.source, runs.config, reference.run).to_dict()
    except NotRepeatableError as error:
        record["not_repeatable"] = str(error)
    return record


def example_sources(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Where the texts of examples come from, as plain values."""
    return [ExampleSource.of(example).to_dict() for example in examples]


def new_kernels(
    config: GPTfluenceConfig,
    stored: torch.Tensor,
    shares: torch.Tensor,
    pool: Sequence[Any] | None,
    test: Sequence[Any] | None,
    data: Path | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kernels of pool and test examples, some of which are new to the simulator.

    Args:
        config: of the simulator.
        stored: `[P * G, n, m]` kernels of what it was trained on.
        shares: `[n, K]` of the pool that it was trained on in the patterns of own responses.
        pool: N examples; None: the pool that it was trained on.
        test: M examples; None: the test examples that it was trained on.
        data: folder with the rows of its tasks; None: generated rows or the Hub.

    Returns:
        `[P * G, N, M]`, shares in patterns `[N, K]`, and the kernels of the n pool examples that the simulator was
        trained on `[P * G, n, M]`.

    Raises:
        NotRepeatableError: a reference run cannot be made again.
        DataError: an example has no texts.
        GPTDynamicsError: the base model or rows cannot be loaded.
    """
    own = _texts(config, "pool", data)
    test_examples = list(test) if test is not None else _texts(config, "test", data)
    place = {key: index for index, key in enumerate(config.pool_keys)}
    every, rows = list(own), []
    for example in own if pool is None else pool:
        key = content_key(example)
        if key not in place:
            place[key] = len(every)
            every.append(example)
        rows.append(place[key])
    if pool is None:
        rows = list(range(len(own)))
    # A new row's share in each pattern is told by its products with the test examples that were trained on.
    trained = _texts(config, "test", data) if len(every) > len(own) else []
    references = [_again(record, every, [*trained, *test_examples], data) for record in config.references]
    own_rows = torch.arange(len(own))
    kernels = mean_of_references(references, config.grouping, config.scaling, own_rows).float()
    stored, tests = stored.cpu(), torch.arange(len(trained))
    parts = parts_as_fitted(kernels, stored, own_rows, tests)[..., len(trained) :]
    every_share = shares_as_fitted(kernels, stored, shares.cpu(), own_rows, tests)
    return parts[:, rows], every_share[rows], parts[:, : len(own)]


def _texts(config: GPTfluenceConfig, part: str, data: Path | None) -> list[Example]:
    """The pool or test examples that the simulator was trained on, with their texts."""
    listed = config.pool_sources if part == "pool" else config.test_sources
    if not listed:
        raise DataError(
            f"this simulator does not say which rows its {part} is made of, so it knows no other examples: train it "
            "again, or take --dynamics memory"
        )
    sources = [ExampleSource.from_dict(each) for each in listed]
    loaded = load_sources(sources, config_parts(config.dataset_config)[0], part, data)
    return [loaded[each.id] for each in sources]


def _again(
    record: dict[str, Any], pool: Sequence[Example], test: Sequence[Example], data: Path | None
) -> ReferenceKernels:
    """The kernels of one reference run for these examples."""
    if "plan_entry" not in record:
        raise NotRepeatableError(str(record.get("not_repeatable", f"run {record['run']} cannot be made again")))
    reference = ReferenceRun.from_dict(record["plan_entry"], data)
    settings = KernelSettings(**{name: record[name] for name in ("columns", "seed") if name in record})
    products = reference_kernels(
        reference, pool, test, settings, steps=record["step"], on_note=lambda note: warnings.warn(note, stacklevel=4)
    )
    return ReferenceKernels(record["run"], np.array(record["step"]), len(reference.curriculum), products.values)
