"""Passes of many examples through a model, and the parameters whose gradients they yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gptdynamics.gradients.capture import capture
from gptdynamics.gradients.products import example_gradients
from gptdynamics.gradients.uses import MatrixUse, Scale, Use, whole_gradients
from gptdynamics.measurement.logits import logit_route
from gptdynamics.models.evaluating import evaluating
from gptdynamics.models.tokens import TokenizedExample, length_sorted_batches, make_target_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Largest difference between a gradient computed from uses and autograd's, as a share of its norm (in fp32, and in lower
# precision) and of the norm of all gradients.
_TOLERANCE, _LOW_PRECISION_TOLERANCE, _SHARE_OF_TOTAL = 1e-3, 0.05, 1e-6
# Memory of a batch's activations, as a multiple of the captured ones.
_ACTIVATIONS = 3
# On a GPU small batches leave most of it idle.
_MOST_TOKENS, _GPU_MOST_TOKENS = 1024, 4096

# Called with the examples of a batch, a parameter's name, and its uses in the batch.
ReceiveRows = Callable[[list[int], str, list[Use]], None]


@dataclass(frozen=True)
class Coverage:
    """The parameters of a model whose gradients passes yield, determined on a sample of examples.

    Attributes:
        factored: parameters whose gradients come from one pass of a whole batch.
        whole: parameters whose gradients need a backward pass for each example.
        left_out: parameters that are too large for that.
        share: share of the squared gradient norm of the parameters that are not left out.
        token_bytes: bytes captured for each token.
    """

    factored: list[str]
    whole: list[str]
    left_out: list[str]
    share: float
    token_bytes: float


class Passes:
    """Passes examples through a model and passes on the factors of their gradients.

    Args:
        model: within `evaluation_mode`.
        scales: factors that gradients are multiplied by, by parameter; empty: none.
        coverage: of the model.
        batch_bytes: memory for the activations of a batch.
    """

    def __init__(
        self, model: PreTrainedModel, scales: Mapping[str, Scale], coverage: Coverage, batch_bytes: float
    ) -> None:
        self.model = model
        self.scales = scales
        # See `capture`.
        self.strict = True
        self.coverage = coverage
        most_tokens = _MOST_TOKENS if model.device.type == "cpu" else _GPU_MOST_TOKENS
        self.batch_tokens = min(most_tokens, int(batch_bytes / (_ACTIVATIONS * coverage.token_bytes + 1)))

    def run(
        self,
        examples: Sequence[TokenizedExample],
        rows: Sequence[int],
        receive: ReceiveRows,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Pass examples through the model, in batches of similar lengths.

        Args:
            examples: all examples.
            rows: indices of those to pass through the model.
            receive: called with rows, a parameter's name, and its uses.
            progress: called with the number of examples of each batch.
        """
        route = logit_route(self.model)
        with _without_gradients(self.model, [*self.coverage.factored, *self.coverage.left_out]):
            for batch in length_sorted_batches([examples[row].input_length for row in rows], self.batch_tokens):
                batch_rows = [rows[index] for index in batch]
                longest = max(len(examples[row]) for row in batch_rows)
                for part in [[row] for row in batch_rows] if route.needs_alone(longest) else [batch_rows]:
                    self._run_batch(examples, part, receive)
                progress(len(batch_rows))

    def _run_batch(self, examples: Sequence[TokenizedExample], rows: list[int], receive: ReceiveRows) -> None:
        def scaled(name: str, uses: list[Use]) -> None:
            if self.scales:
                uses = [self.scales[name].apply(use) for use in uses]
            receive(rows, name, uses)

        batch = make_target_batch(examples, rows).to(self.model.device)
        capture(self.model, batch, self.coverage.factored, scaled, self.strict)


def find_coverage(model: PreTrainedModel, sample: Sequence[TokenizedExample], whole_bytes: float) -> Coverage:
    """Compare the gradients that passes yield with autograd's, parameter by parameter, on a sample of examples.

    Args:
        model: within `evaluation_mode`.
        sample: a few examples, of different lengths.
        whole_bytes: memory for one example's gradients of the parameters that cannot be factored.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    full_coverage = Coverage(list(trained), [], [], 1.0, 0.0)
    result: list[tuple[list[int], dict[str, list[Use]]]] = []

    def record(rows: list[int], name: str, uses: list[Use]) -> None:
        if not result or result[-1][0] is not rows:
            result.append((rows, {}))
        result[-1][1][name] = uses

    passes = Passes(model, {}, full_coverage, 0)
    passes.strict = False
    passes.batch_tokens = len(sample) * max(example.input_length for example in sample)
    passes.run(sample, range(len(sample)), record)
    token_bytes = _bytes_held([uses for _, batch in result for uses in batch.values()])
    token_bytes /= sum(example.input_length for example in sample)
    position_by_row = {row: (batch, rows.index(row)) for rows, batch in result for row in rows}

    unfactored: set[str] = set()
    squares = dict.fromkeys(trained, 0.0)
    for row, gradients in enumerate(example_gradients(model, sample)):
        batch, index = position_by_row.get(row, ({}, 0))
        total = torch.stack([example.float().norm() for example in gradients]).norm()
        for (name, value), gradient in zip(trained.items(), gradients, strict=True):
            expected = gradient.flatten().float()
            squares[name] += float(expected.square().sum())
            batch_uses = batch.get(name)
            computed = whole_gradients([use.row(index) for use in batch_uses], value.shape)[0] if batch_uses else 0.0
            tolerance = _TOLERANCE if value.dtype in (torch.float32, torch.float64) else _LOW_PRECISION_TOLERANCE
            if (expected - computed).norm() > tolerance * expected.norm() + _SHARE_OF_TOTAL * total:
                unfactored.add(name)
    size = 4 * sum(trained[name].numel() for name in unfactored)
    whole, left_out = (sorted(unfactored), []) if size <= whole_bytes else ([], sorted(unfactored))
    total_square = sum(squares.values()) or 1.0
    return Coverage(
        factored=[name for name in trained if name not in unfactored],
        whole=whole,
        left_out=left_out,
        share=1 - sum(squares[name] for name in left_out) / total_square,
        token_bytes=token_bytes,
    )


def _bytes_held(use_lists: list[list[Use]]) -> float:
    """Memory of uses; memory shared by several tensors counts once."""
    storages: dict[int, int] = {}
    for use in (use for uses in use_lists for use in uses):
        for tensor in (use.left, use.right) if isinstance(use, MatrixUse) else (use.values,):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return float(sum(storages.values()))


@contextmanager
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the model is in evaluation mode and its experts are called one by one."""
    config: Any = model.config
    experts = getattr(config, "_experts_implementation", None)
    # Before anything is captured, because the trial passes inputs of its own through the model.
    logit_route(model)
    if experts is not None:
        config._experts_implementation = "eager"
    try:
        with evaluating(model):
            yield
    finally:
        if experts is not None:
            config._experts_implementation = experts


@contextmanager
def _without_gradients(model: PreTrainedModel, names: Sequence[str]) -> Iterator[None]:
    parameters = dict(model.named_parameters())
    try:
        for name in names:
            parameters[name].requires_grad_(False)
        yield
    finally:
        for name in names:
            parameters[name].requires_grad_(True)
