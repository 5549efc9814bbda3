"""Passes of many examples through a model, and which of its parameters they yield the gradients of."""

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
from gptdynamics.models.tokens import TokenizedExample, length_sorted_batches, make_target_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# How far a gradient made of a parameter's uses may be from autograd's, as a share of its norm and of the whole's.
_TOLERANCE, _ROUGH, _WHOLE = 1e-3, 0.05, 1e-6
# Memory of a batch's activations, as a multiple of what is captured of them.
_ACTIVATIONS = 3
_MOST_TOKENS = 1024

# Takes which examples a batch is of, a parameter's name, and its uses in the batch.
ReceiveRows = Callable[[list[int], str, list[Use]], None]


@dataclass(frozen=True)
class Coverage:
    """What passes yield of a model, found out on a sample of examples.

    Attributes:
        factored: parameters whose gradients come from one pass of a whole batch.
        whole: parameters whose gradients are taken by a backward pass for each example.
        left_out: parameters that are too large for that.
        share: of the squared gradient, that of the parameters that are not left out.
        token_bytes: captured for each token.
    """

    factored: list[str]
    whole: list[str]
    left_out: list[str]
    share: float
    token_bytes: float


class Passes:
    """Runs examples through a model and hands over what their gradients are made of.

    Args:
        model: in evaluation mode, within `undisturbed`.
        scales: factors of the gradients, by parameter; none: gradients as they are.
        coverage: of the model.
        batch_bytes: memory for the activations of a batch.
    """

    def __init__(
        self, model: PreTrainedModel, scales: Mapping[str, Scale], coverage: Coverage, batch_bytes: float
    ) -> None:
        self.model = model
        self.scales = scales
        # Whether uses that cannot be told apart by example are refused.
        self.strict = True
        self.coverage = coverage
        self.batch_tokens = min(_MOST_TOKENS, int(batch_bytes / (_ACTIVATIONS * coverage.token_bytes + 1)))

    def run(
        self,
        examples: Sequence[TokenizedExample],
        rows: Sequence[int],
        receive: ReceiveRows,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Pass examples through the model, in batches of similar lengths.

        Args:
            examples: of which some are passed.
            rows: which.
            receive: takes rows, a parameter's name, and its uses.
            progress: takes how many examples a batch had.
        """
        route = logit_route(self.model)
        with _without_gradients(self.model, [*self.coverage.factored, *self.coverage.left_out]):
            for batch in length_sorted_batches([examples[row].input_length for row in rows], self.batch_tokens):
                chosen = [rows[index] for index in batch]
                longest = max(len(examples[row]) for row in chosen)
                for some in [[row] for row in chosen] if route.needs_alone(longest) else [chosen]:
                    self._run_batch(examples, some, receive)
                progress(len(chosen))

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
        model: in evaluation mode, within `undisturbed`.
        sample: a few examples, of different lengths.
        whole_bytes: memory that one example's gradients of parameters that are not factored may take up.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    everything = Coverage(list(trained), [], [], 1.0, 0.0)
    result: list[tuple[list[int], dict[str, list[Use]]]] = []

    def keep(rows: list[int], name: str, uses: list[Use]) -> None:
        if not result or result[-1][0] is not rows:
            result.append((rows, {}))
        result[-1][1][name] = uses

    passes = Passes(model, {}, everything, 0)
    passes.strict = False
    passes.batch_tokens = len(sample) * max(each.input_length for each in sample)
    passes.run(sample, range(len(sample)), keep)
    token_bytes = _bytes_held([uses for _, batch in result for uses in batch.values()])
    token_bytes /= sum(each.input_length for each in sample)
    place = {row: (batch, rows.index(row)) for rows, batch in result for row in rows}

    wrong: set[str] = set()
    squares = dict.fromkeys(trained, 0.0)
    for row, gradients in enumerate(example_gradients(model, sample)):
        batch, index = place.get(row, ({}, 0))
        total = torch.stack([each.float().norm() for each in gradients]).norm()
        for (name, value), gradient in zip(trained.items(), gradients, strict=True):
            true = gradient.flatten().float()
            squares[name] += float(true.square().sum())
            held = batch.get(name)
            made = whole_gradients([use.row(index) for use in held], value.shape)[0] if held else 0.0
            tolerance = _TOLERANCE if value.dtype in (torch.float32, torch.float64) else _ROUGH
            if (true - made).norm() > tolerance * true.norm() + _WHOLE * total:
                wrong.add(name)
    size = 4 * sum(trained[name].numel() for name in wrong)
    whole, left_out = (sorted(wrong), []) if size <= whole_bytes else ([], sorted(wrong))
    total_square = sum(squares.values()) or 1.0
    return Coverage(
        factored=[name for name in trained if name not in wrong],
        whole=whole,
        left_out=left_out,
        share=1 - sum(squares[name] for name in left_out) / total_square,
        token_bytes=token_bytes,
    )


def _bytes_held(lists: list[list[Use]]) -> float:
    """Memory of uses; tensors that share theirs count once."""
    storages: dict[int, int] = {}
    for use in (use for uses in lists for use in uses):
        for tensor in (use.left, use.right) if isinstance(use, MatrixUse) else (use.values,):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return float(sum(storages.values()))


@contextmanager
def undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, and experts one by one; afterwards the model is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    config: Any = model.config
    experts = getattr(config, "_experts_implementation", None)
    # Before anything watches: it tries the model on inputs of its own.
    logit_route(model)
    model.eval()
    if experts is not None:
        config._experts_implementation = "eager"
    try:
        yield
    finally:
        if experts is not None:
            config._experts_implementation = experts
        for module, training in modes:
            module.training = training


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
