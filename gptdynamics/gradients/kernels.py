"""Inner products of the loss gradients of all pool and test examples, from one forward and backward pass of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from gptdynamics.errors import SettingsError
from gptdynamics.gradients.factored_products import BatchUses, add_products, squared_norms
from gptdynamics.gradients.passes import Coverage, Passes, evaluation_mode, find_coverage
from gptdynamics.gradients.projection import Projection
from gptdynamics.gradients.uses import Scale, Use
from gptdynamics.models.tokens import TokenizedExample

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Method = Literal["projected", "exact"]
Progress = Callable[[int, int], None]

MEMORY_LIMIT = 2**32
# Number of examples that coverage is measured on, and of pool and of test examples that errors are estimated on.
COVERAGE_SAMPLE, ERROR_SAMPLE = 3, 10


@dataclass(frozen=True)
class Kernel:
    """Inner products of gradients of the mean cross-entropy over each example's target tokens.

    Attributes:
        products: `[pool, tests]` float32.
        pool_norms: `[pool]` float32, squared norms of the pool's gradients.
        test_norms: `[tests]` float32, squared norms of the test examples' gradients.
        method: `projected` or `exact`.
        columns: of the random matrices; None if products are exact.
        seed: of the random matrices; None if products are exact.
        preconditioned: whether products are divided by the roots of second moments.
        relative_error: root mean square error of a product, relative to the root mean square product; estimated with a
            second seed on a sample of pairs; 0 if products are exact, infinite if they do not differ from zero.
        cosine_error: root mean square error of a product, relative to the product of the two norms; same sample.
        covered: share of the squared gradient norm that the products include, measured on a sample of examples.
        not_covered: names of trainable parameters that the products leave out.
    """

    products: np.ndarray
    pool_norms: np.ndarray
    test_norms: np.ndarray
    method: Method
    columns: int | None
    seed: int | None
    preconditioned: bool
    relative_error: float
    cosine_error: float
    covered: float
    not_covered: tuple[str, ...]


def gradient_kernel(
    model: PreTrainedModel,
    pool: Sequence[TokenizedExample],
    tests: Sequence[TokenizedExample],
    *,
    method: Method = "projected",
    columns: int = 96,
    seed: int = 0,
    second_moments: Mapping[str, torch.Tensor] | None = None,
    epsilon: float = 1e-8,
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress | None = None,
) -> Kernel:
    """<grad loss(z), grad loss(z')> of every pool and test example, over all trainable parameters.

    Args:
        model: it is not changed, nor are its gradients.
        pool: the examples z; they are passed through the model a few at a time.
        tests: the examples z'. If their gradients do not fit in the memory, they are split into parts, and the pool is
            passed through the model again for each part.
        method: `projected`: gradients are multiplied by fixed random matrices; products are unbiased estimates.
            `exact`: exact products, one parameter after the other.
        columns: of the random matrices.
        seed: of the random matrices.
        second_moments: the optimiser's mean squared gradient v of every trainable parameter, by name; products are then
            those of g and g' / sqrt(v), each matrix of v factored into rows and columns.
        epsilon: its square is added to second moments.
        memory_limit: bytes in addition to the model.
        progress: called with the number of examples passed through the model so far, and their total.

    Raises:
        SettingsError: no parameter is trainable, a second moment is missing, or an example does not fit in the memory.
    """
    trained = {name: value.shape for name, value in model.named_parameters() if value.requires_grad}
    if not trained:
        raise SettingsError("gradient products: no parameter of the model is trainable. Set requires_grad")
    if not pool or not tests:
        raise SettingsError("gradient products: no pool or no test examples. Give at least one of each")
    scales = _make_scales(trained, second_moments, epsilon, model.device)
    with evaluation_mode(model):
        # An example's gradients of parameters that cannot be factored may take up to an eighth of the memory.
        coverage = find_coverage(model, _sample([*pool, *tests], COVERAGE_SAMPLE), memory_limit / 8)
        if method == "exact":
            engine: _Exact | _Projected = _Exact(model, trained, scales, coverage, memory_limit)
        else:
            engine = _Projected(model, trained, scales, coverage, memory_limit, columns, seed)
        count = _Counter(progress)
        result = engine.products(pool, tests, count)
        error, cosine_error = engine.errors(pool, tests, result)
    projected = method == "projected"
    products, pool_norms, test_norms = result
    return Kernel(
        products=_to_array(products),
        pool_norms=_to_array(pool_norms),
        test_norms=_to_array(test_norms),
        method=method,
        columns=columns if projected else None,
        seed=seed if projected else None,
        preconditioned=bool(scales),
        relative_error=error,
        cosine_error=cosine_error,
        covered=coverage.share,
        not_covered=tuple(coverage.left_out),
    )


# `[pool, tests]` products, and the squared norms of both sides.
Products = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _Projected:
    """Holds the projected gradients of test examples and multiplies those of the pool by them as they are computed."""

    def __init__(
        self,
        model: PreTrainedModel,
        shapes: Mapping[str, torch.Size],
        scales: Mapping[str, Scale],
        coverage: Coverage,
        memory_limit: int,
        columns: int,
        seed: int,
    ) -> None:
        self.names = [*coverage.factored, *coverage.whole]
        self.projection = Projection(shapes, columns, seed, model.device)
        self.passes = Passes(model, scales, coverage, memory_limit / 4)
        self.test_bytes = 4 * sum(self.projection.width(name) for name in self.names)
        matrices = self.projection.matrix_bytes(self.names)
        self.tests_at_once = int((0.7 * memory_limit - matrices) / self.test_bytes)
        if self.tests_at_once < 1:
            needed = (matrices + self.test_bytes) / 0.7
            raise SettingsError(_too_little(memory_limit, needed, "or fewer columns"))

    def products(
        self, pool: Sequence[TokenizedExample], tests: Sequence[TokenizedExample], count: _Counter
    ) -> Products:
        blocks = _even_blocks(len(tests), self.tests_at_once)
        count.total = len(tests) + len(blocks) * len(pool)
        device = self.projection.device
        products = torch.zeros(len(pool), len(tests), dtype=torch.float64, device=device)
        pool_norms, test_norms = (torch.zeros(len(side), dtype=torch.float64, device=device) for side in (pool, tests))
        for block in blocks:
            test_features = self._features(tests, block, self.projection, count)
            for features in test_features.values():
                test_norms[block.start : block.stop] += features.square().sum(1)

            def multiply(
                rows: list[int],
                name: str,
                uses: list[Use],
                block: range = block,
                test_features: dict[str, torch.Tensor] = test_features,
            ) -> None:
                features = self.projection.project(name, uses)
                place = torch.tensor(rows, device=device)
                products[place, block.start : block.stop] += features @ test_features[name].T
                if block.start == 0:
                    pool_norms[place] += features.square().sum(1)

            self.passes.run(pool, range(len(pool)), multiply, count)
        return products, pool_norms, test_norms

    def errors(
        self, pool: Sequence[TokenizedExample], tests: Sequence[TokenizedExample], computed: Products
    ) -> tuple[float, float]:
        """`relative_error` and `cosine_error`, from a second seed.

        Seeds are independent, so the mean squared error is half the mean squared difference.
        """
        if self.projection.exact:
            return 0.0, 0.0
        second_projection = Projection(
            self.projection.shapes, self.projection.columns, self.projection.seed + 2**32, self.projection.device
        )
        pool_rows, test_rows = (_evenly(len(side), ERROR_SAMPLE) for side in (pool, tests))
        left = self._features(pool, pool_rows, second_projection)
        right = self._features(tests, test_rows, second_projection)
        second = torch.zeros(len(pool_rows), len(test_rows), dtype=torch.float64, device=self.projection.device)
        for name in self.names:
            second += left[name] @ right[name].T
        products, pool_norms, test_norms = computed
        first = products[torch.tensor(pool_rows).unsqueeze(1), torch.tensor(test_rows)]
        norms = torch.outer(pool_norms[pool_rows], test_norms[test_rows])
        squared_error = (first - second).square() / 2
        # The estimates are independent, so the errors cancel in the mean of their product.
        mean_product = (first * second).mean()
        relative = float((squared_error.mean() / mean_product).sqrt()) if mean_product > 0 else math.inf
        return relative, float((squared_error / norms.clamp_min(1e-300)).mean().sqrt())

    def _features(
        self,
        examples: Sequence[TokenizedExample],
        rows: Sequence[int],
        projection: Projection,
        count: Callable[[int], None] = lambda count: None,
    ) -> dict[str, torch.Tensor]:
        """Projected gradients of some examples, by parameter: `[rows, numbers]`."""
        place = {row: index for index, row in enumerate(rows)}
        features = {
            name: torch.zeros(len(rows), projection.width(name), device=projection.device) for name in self.names
        }

        def store(batch: list[int], name: str, uses: list[Use]) -> None:
            places = torch.tensor([place[row] for row in batch], device=projection.device)
            features[name][places] = projection.project(name, uses)

        self.passes.run(examples, rows, store, count)
        return features


class _Exact:
    """Holds the factors of the gradients of a part of the pool and a part of the test examples."""

    def __init__(
        self,
        model: PreTrainedModel,
        shapes: Mapping[str, torch.Size],
        scales: Mapping[str, Scale],
        coverage: Coverage,
        memory_limit: int,
    ) -> None:
        self.shapes = shapes
        self.device = model.device
        self.memory_limit = memory_limit
        self.passes = Passes(model, scales, coverage, memory_limit / 4)
        self.token_bytes = coverage.token_bytes * (2 if scales else 1)
        self.example_bytes = 4 * sum(shapes[name].numel() for name in coverage.whole)

    def products(
        self, pool: Sequence[TokenizedExample], tests: Sequence[TokenizedExample], count: _Counter
    ) -> Products:
        pool_blocks, test_blocks = self._blocks(pool), self._blocks(tests)
        count.total = len(tests) + len(test_blocks) * len(pool)
        products = torch.zeros(len(pool), len(tests), dtype=torch.float64, device=self.device)
        norms = [torch.zeros(len(side), dtype=torch.float64, device=self.device) for side in (pool, tests)]
        for number, test_block in enumerate(test_blocks):
            held_tests = self._hold(tests, test_block, norms[1], count)
            for pool_block in pool_blocks:
                block_norms = norms[0] if not number else torch.zeros_like(norms[0])
                for name, uses in self._hold(pool, pool_block, block_norms, count).items():
                    if name in held_tests:
                        add_products(products, uses, held_tests[name], self.shapes[name], self.memory_limit / 8)
        return products, norms[0], norms[1]

    def errors(
        self, pool: Sequence[TokenizedExample], tests: Sequence[TokenizedExample], computed: Products
    ) -> tuple[float, float]:
        return 0.0, 0.0

    def _blocks(self, examples: Sequence[TokenizedExample]) -> list[list[int]]:
        """Parts of the examples that each fit in a quarter of the memory."""
        room = self.memory_limit / 4
        blocks: list[list[int]] = [[]]
        used = 0.0
        for row in sorted(range(len(examples)), key=lambda row: (examples[row].input_length, row)):
            size = self.token_bytes * examples[row].input_length + self.example_bytes
            if size > room:
                raise SettingsError(_too_little(self.memory_limit, 4 * size, "or use projected products"))
            if used + size > room:
                blocks.append([])
                used = 0.0
            blocks[-1].append(row)
            used += size
        return blocks

    def _hold(
        self, examples: Sequence[TokenizedExample], rows: list[int], norms: torch.Tensor, count: _Counter
    ) -> dict[str, list[BatchUses]]:
        held: dict[str, list[BatchUses]] = {}

        def store(batch: list[int], name: str, uses: list[Use]) -> None:
            held.setdefault(name, []).append((batch, uses))
            norms[torch.tensor(batch, device=norms.device)] += squared_norms(uses)

        self.passes.run(examples, rows, store, count)
        return held


class _Counter:
    """Counts the examples passed through the model and reports the progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.done = 0
        self.total = 0

    def __call__(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, self.total)


def _make_scales(
    trained: Mapping[str, torch.Size],
    second_moments: Mapping[str, torch.Tensor] | None,
    epsilon: float,
    device: torch.device,
) -> dict[str, Scale]:
    if second_moments is None:
        return {}
    for name, shape in trained.items():
        if name not in second_moments or second_moments[name].shape != shape:
            raise SettingsError(
                f"second moments: there is none for {name} {tuple(shape)}. Give one for each trainable parameter"
            )
    return {name: Scale.of_second_moment(second_moments[name].to(device), epsilon) for name in trained}


def _even_blocks(count: int, largest: int) -> list[range]:
    blocks = -(-count // largest)
    edges = [round(index * count / blocks) for index in range(blocks + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def _evenly(count: int, limit: int) -> list[int]:
    return sorted({round(index * (count - 1) / max(1, limit - 1)) for index in range(limit)})


def _sample(examples: Sequence[TokenizedExample], limit: int) -> list[TokenizedExample]:
    """A few examples, evenly spaced by length."""
    order = sorted(range(len(examples)), key=lambda row: (examples[row].input_length, row))
    return [examples[order[index]] for index in _evenly(len(order), limit)]


def _too_little(limit: float, needed: float, alternative: str) -> str:
    return (
        f"gradient products: {limit / 2**30:.2g} GiB of memory are too little: this model needs "
        f"{needed / 2**30:.2g} GiB. Set that memory limit {alternative}"
    )


def _to_array(values: torch.Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
