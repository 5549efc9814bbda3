"""Derivatives of every example's loss along directions in weight space, exact over all trainable parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gptdynamics.measurement.logits import logit_route, target_logits
from gptdynamics.measurement.loss import example_losses
from gptdynamics.models.tokens import TargetBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Direction = Mapping[str, torch.Tensor]

# From this many tokens on, computing a matrix's gradient once is cheaper than its changes along two directions.
LONG_INPUT = 24
# The most numbers in gradients of a matrix held at once, so that they stay in a core's cache until they are read.
HELD_AT_ONCE = 2**18

# Modules whose output is linear in their own parameters, by the name of their class.
LINEAR_IN_WEIGHTS = {"Linear", "Embedding", "LayerNorm", "Conv1D", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm"}


def directional_derivatives(
    model: PreTrainedModel, batches: Sequence[TargetBatch], directions: Sequence[Direction], examples: int
) -> np.ndarray:
    """<D, grad loss(z')> for every example z' and each direction D.

    Args:
        model: in evaluation mode; it is not changed.
        batches: the examples, on the model's device.
        directions: each a tensor for every trainable parameter, by name; a shared weight has one name.
        examples: number of examples in all batches together.

    Returns:
        `[directions, examples]` float32.
    """
    derivatives = np.zeros((len(directions), examples), dtype=np.float32)
    route, local = logit_route(model), supports_local(model)
    for batch in batches:
        together = local and not route.needs_alone(int(batch.lengths.max()) + 1)
        values = local_derivatives(model, batch, directions) if together else None
        if values is None:
            try:
                values = forward_derivatives(model, batch, directions)
            except (NotImplementedError, RuntimeError):
                # Kernels of experts and some others do not support forward mode.
                values = reverse_derivatives(model, batch, directions)
        derivatives[:, batch.rows] = values.cpu().numpy()
    return derivatives


def reverse_derivatives(model: PreTrainedModel, batch: TargetBatch, directions: Sequence[Direction]) -> torch.Tensor:
    """As `directional_derivatives`, with a backward pass for each row: `[directions, rows]`. For any model."""
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    weights = [value for value in model.parameters() if value.requires_grad]
    derivatives = torch.zeros(len(directions), len(batch.rows), device=batch.input_ids.device)
    with torch.enable_grad():
        losses = example_losses(target_logits(model, batch), batch)
        for row in range(len(batch.rows)):
            last = row == len(batch.rows) - 1
            gradients = torch.autograd.grad(losses[row], weights, retain_graph=not last, allow_unused=True)
            for index, direction in enumerate(directions):
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:
                        derivatives[index, row] += (gradient * direction[name]).sum()
    return derivatives


def forward_derivatives(model: PreTrainedModel, batch: TargetBatch, directions: Sequence[Direction]) -> torch.Tensor:
    """As `directional_derivatives`, with forward mode through the whole model: `[directions, rows]`.

    For any model whose operations support forward mode.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    logit_route(model)
    losses = ExampleLosses(model)
    weights = {f"model.{name}": value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def losses_of(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(losses, values, (batch,))

    derivatives = []
    # Only this attention kernel supports forward mode; torch itself uses a deprecated function for it.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for direction in directions:
            tangent = {name: direction[name.removeprefix("model.")] for name in weights}
            derivatives.append(torch.func.jvp(losses_of, (weights,), (tangent,))[1].detach())
    return torch.stack(derivatives)


class ExampleLosses(torch.nn.Module):
    """A module that computes the loss of each example of a batch: `[rows]`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TargetBatch) -> torch.Tensor:
        """See above."""
        return example_losses(target_logits(self.model, batch), batch)


def _own_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(module.named_parameters(recurse=False))


def _trained(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Modules that have trainable parameters, not counting those of submodules."""
    return [
        module
        for module in model.modules()
        if any(parameter.requires_grad for parameter in _own_parameters(module).values())
    ]


def supports_local(model: PreTrainedModel) -> bool:
    """Whether every trainable parameter belongs to a module that is linear in it."""
    return all(type(module).__name__ in LINEAR_IN_WEIGHTS for module in _trained(model))


@dataclass
class _Call:
    """One call of a module: its input and its output."""

    module: torch.nn.Module
    inputs: torch.Tensor
    result: torch.Tensor


def local_derivatives(
    model: PreTrainedModel, batch: TargetBatch, directions: Sequence[Direction]
) -> torch.Tensor | None:
    """As `directional_derivatives`, with one forward pass, one backward pass to activations, and products per module.

    If a module f is linear in its weights W, the derivative of its output along W' is f with W' in place of W, at the
    same input. With d the gradient of the sum of all losses with respect to that output (examples do not mix), the
    derivative of an example's loss is the sum over modules and the example's tokens of <d, f_W'(input)>. For linear
    layers with long inputs it is computed as <sum of d input^T, W'>, where the sum serves all directions.

    Returns:
        `[directions, rows]`; None if an output is shared by the rows of the batch or mixes them, or if the weights of a
        module are read without calling it.
    """
    # Before the hooks, so that these do not see the trial of the model.
    logit_route(model)
    calls: list[_Call] = []
    first = model.get_input_embeddings()

    def record_call(module: torch.nn.Module, inputs: tuple[Any, ...], result: torch.Tensor) -> torch.Tensor:
        if not result.requires_grad or module is first:
            result = result.detach().requires_grad_(True)
        calls.append(_Call(module, inputs[0].detach(), result))
        return result

    modules = list(dict.fromkeys([first, *_trained(model)]))
    handles = [module.register_forward_hook(record_call) for module in modules]
    try:
        with torch.enable_grad():
            losses = example_losses(target_logits(model, batch), batch)
    finally:
        for handle in handles:
            handle.remove()
    if not _by_row(model, batch, modules, calls):
        return None
    deltas = torch.autograd.grad(losses.sum(), [call.result for call in calls], materialize_grads=True)
    rows = len(batch.rows)
    names = {id(value): name for name, value in model.named_parameters()}
    derivatives = deltas[0].new_zeros(len(directions), rows)
    with torch.no_grad():
        for call, delta in zip(calls, deltas, strict=True):
            parameters = _own_parameters(call.module)
            if not any(value.requires_grad for value in parameters.values()):
                continue
            tangents = [
                {
                    key: direction[names[id(value)]] if value.requires_grad else torch.zeros_like(value)
                    for key, value in parameters.items()
                }
                for direction in directions
            ]
            if type(call.module) is torch.nn.Linear and delta.dim() == 3 and delta.size(1) >= LONG_INPUT:
                derivatives += _by_gradients(call.inputs, delta, tangents)
                continue
            for index, tangent in enumerate(tangents):
                change = torch.func.functional_call(call.module, tangent, (call.inputs,))
                if change.dim() == 3:
                    derivatives[index] += torch.linalg.vecdot(change.flatten(1), delta.flatten(1))
                else:
                    derivatives[index].index_add_(0, batch.row, torch.linalg.vecdot(change, delta))
    return derivatives


def _by_row(model: PreTrainedModel, batch: TargetBatch, modules: list[torch.nn.Module], calls: list[_Call]) -> bool:
    """Whether every module was called, and its outputs can be assigned to the rows, or to the targets, of the batch."""
    if {id(module) for module in modules} != {id(call.module) for call in calls}:
        return False
    head = model.get_output_embeddings()
    for call in calls:
        shape = call.result.shape
        of_rows = len(shape) == 3 and shape[0] == len(batch.rows)
        of_targets = call.module is head and len(shape) == 2 and shape[0] == len(batch.target)
        if not of_rows and not of_targets:
            return False
    return True


def _by_gradients(inputs: torch.Tensor, delta: torch.Tensor, tangents: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Products of a linear layer's gradient for each row with each direction: `[directions, rows]`.

    Args:
        inputs: `[rows, tokens, in]`.
        delta: gradient with respect to the output, `[rows, tokens, out]`.
        tangents: for each direction `weight` `[out, in]`, and `bias` if the layer has one.
    """
    weights = torch.stack([tangent["weight"].flatten() for tangent in tangents])
    at_once = max(1, HELD_AT_ONCE // weights.size(1))
    parts = [
        weights @ torch.bmm(delta_part.mT, input_part).flatten(1).T
        for input_part, delta_part in zip(inputs.split(at_once), delta.split(at_once), strict=True)
    ]
    result = torch.cat(parts, 1)
    if "bias" in tangents[0]:
        result += torch.stack([tangent["bias"] for tangent in tangents]) @ delta.sum(1).T
    return result
