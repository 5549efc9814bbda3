"""The kernels that `tangent` is fitted with: recorded ones of a dataset's training runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gptdynamics.configs import split_of
from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.gradient_reading import has_products, read_products
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.runs.run import RunKernel
from simulator.model.dynamics import EncodedExamples
from simulator.model.example_encoding import content_key
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.tangent_dynamics import PARTS, group_kernels, kernel_examples, kernel_parts, kernel_patterns

# More reference runs made predictions no better, and each needs gradients of its own.
MOST_REFERENCES = 2


@dataclass(frozen=True)
class ReferenceKernels:
    """Products of the gradients of all pool and test examples along one run.

    Attributes:
        run: its name.
        step: `[C]` updates made before each checkpoint.
        updates: of the whole run.
        products: `[C, N, M]`.
        kernel: how they were projected; None: they are exact, or that does not matter.
    """

    run: str
    step: np.ndarray
    updates: int
    products: np.ndarray
    kernel: RunKernel | None = None

    def grouped(self, grouping: str, scaling: float, own: torch.Tensor | None = None) -> torch.Tensor:
        """`[G, N, M]`; arguments and errors as of `group_kernels`."""
        progress = torch.from_numpy(self.step / self.updates)
        return group_kernels(torch.from_numpy(self.products).double(), progress, grouping, scaling, own)


def recorded_kernels(runs: Dynamics, run: str) -> ReferenceKernels:
    """The recorded kernels of one run, for the pool and test examples of `runs`.

    Raises:
        DataError: there are none, or they lack an example.
    """
    recorded = read_products(runs.source, runs.config, run)
    sides = []
    for part, examples, ids in (("pool", runs.pool, recorded.pool_ids), ("test", runs.test, recorded.test_ids)):
        place = {key: index for index, key in enumerate(ids)}
        missing = [example.id for example in examples if example.id not in place]
        if missing:
            raise DataError(
                f"{runs.config}: the kernels of run {run} lack {part} example {missing[0]}: take them again with "
                "gptdynamics collect --kernels, or train with --dynamics memory"
            )
        sides.append([place[example.id] for example in examples])
    products = recorded.values[:, sides[0]][:, :, sides[1]]
    return ReferenceKernels(run, recorded.step, runs.learning_rate.shape[1], products, recorded.kernel)


def has_reference_kernels(runs: Dynamics) -> bool:
    """Whether a training run has recorded kernels."""
    return bool(reference_run_names(runs))


def reference_run_names(runs: Dynamics) -> list[str]:
    """The first training runs that have recorded kernels, which are taken."""
    training = [run for run in runs.runs if split_of(run) == "train"]
    return [run for run in training if has_products(runs.source, runs.config, run)][:MOST_REFERENCES]


def reference_kernels(runs: Dynamics) -> list[ReferenceKernels]:
    """The recorded kernels of the first training runs that have some: they look into no run that is predicted.

    Raises:
        DataError: no training run has kernels.
    """
    chosen = reference_run_names(runs)
    if not chosen:
        raise DataError(
            f"{runs.config}: none of its training runs has kernels, which tangent predicts from: take them with "
            "gptdynamics collect --kernels 2, or train with --dynamics memory"
        )
    return [recorded_kernels(runs, run) for run in chosen]


def recorded_examples(model: GPTfluenceSimulator, runs: Dynamics, of: Sequence[str] = ()) -> EncodedExamples:
    """What a tangent simulator needs of the pool and test examples of `runs`, by recorded kernels.

    Args:
        model: the simulator.
        runs: of the config that it was trained on; their examples may be new to it.
        of: runs whose kernels are taken; default: its reference runs.

    Raises:
        DataError: a run has no kernels, they are at other steps than the simulator's, or `runs` lack an example of the
            pool that it was trained on; where they have others, too, a test example.
    """
    config = model.config
    references = [recorded_kernels(runs, run) for run in of or [each["run"] for each in config.references]]
    own = _places(config.pool_keys, runs.pool, f"{runs.config}: pool")
    new = len(own) < len(runs.pool)
    tests = _places(config.test_keys if new else (), runs.test, f"{runs.config}: test")
    try:
        kernels = mean_of_references(references, config.grouping, config.scaling, own).float()
    except ValueError as error:
        raise DataError(f"{runs.config}: {error}") from error
    stored, shares = model.dynamics.kernels, model.dynamics.pool_shares
    shares = shares_as_fitted(kernels, stored, shares.to(kernels), own, tests)
    kernels = parts_as_fitted(kernels, stored, own, tests)
    return kernel_examples(kernels, shares, kernels[:, own], model.places(runs.test))


def _places(keys: Sequence[str], examples: Sequence[Example], part: str) -> torch.Tensor:
    """Where the examples of these content keys are."""
    place = {content_key(example): index for index, example in enumerate(examples)}
    lacking = [key for key in keys if key not in place]
    if lacking:
        raise DataError(f"{part}: {len(lacking)} examples that the simulator was trained on are gone")
    return torch.tensor([place[key] for key in keys], dtype=torch.long)


def mean_of_references(
    references: list[ReferenceKernels], grouping: str, scaling: float, own: torch.Tensor | None = None
) -> torch.Tensor:
    """The grouped kernels averaged over reference runs, `[G, N, M]`; arguments and errors as of `group_kernels`."""
    return torch.stack([each.grouped(grouping, scaling, own) for each in references]).mean(0)


def fitted_kernels(references: list[ReferenceKernels], grouping: str, scaling: float) -> torch.Tensor:
    """What coefficients are fitted on: the kernels in parts, `[P * G, N, M]`; errors as of `group_kernels`."""
    kernels = mean_of_references(references, grouping, scaling)
    return kernel_parts(kernels, kernel_patterns(kernels)[0], torch.arange(kernels.size(1)))


def parts_as_fitted(
    kernels: torch.Tensor, stored: torch.Tensor, own: torch.Tensor, tests: torch.Tensor
) -> torch.Tensor:
    """Kernels of examples some of which are new, split by the patterns of those that were trained on.

    Args:
        kernels: `[G, N, M]`.
        stored: `[P * G, n, m]` of the pool and test examples that were trained on.
        own: `[n]` places of this pool among the N rows.
        tests: `[m]` places of these test examples among the M; only needed where pool rows are new.

    Returns:
        `[P * G, N, M]`.
    """
    patterns, weights = kernel_patterns(stored.unflatten(0, (PARTS, -1)).sum(0).to(kernels))
    shares = kernels.new_empty(len(kernels), kernels.size(1), patterns.size(2))
    shares[:, own] = patterns
    new = _all_but(own, kernels.size(1))
    if len(new):
        shares[:, new] = kernels[:, new][..., tests] @ weights
    return kernel_parts(kernels, shares, own)


def shares_as_fitted(
    kernels: torch.Tensor, stored: torch.Tensor, shares: torch.Tensor, own: torch.Tensor, tests: torch.Tensor
) -> torch.Tensor:
    """Shares `[N, K]` of pool examples, some of which are new, in the patterns that test examples respond to.

    Args:
        kernels, stored, own, tests: as of `parts_as_fitted`.
        shares: `[n, K]` of the pool that was trained on.
    """
    every = shares.new_zeros(kernels.size(1), shares.size(1))
    every[own] = shares
    new = _all_but(own, len(every))
    if len(new):
        # Patterns are of unit length and at right angles: so is this what each is multiplied by in the kernels.
        of_tests = stored.sum(0).to(shares).T @ shares
        squares = of_tests.square().sum(0)
        weights = of_tests / torch.where(squares > 0, squares, 1.0)
        every[new] = kernels.sum(0)[new][:, tests].to(shares) @ weights
    return every


def _all_but(own: torch.Tensor, rows: int) -> torch.Tensor:
    """The places of rows that are not among `own`."""
    new = torch.ones(rows, dtype=torch.bool)
    new[own] = False
    return new.nonzero().squeeze(1)
