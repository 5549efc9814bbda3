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

# Inputs of so many tokens make the gradient of a matrix, once, cheaper than its change along each of two directions.
LONG_INPUT = 24
# Numbers in the gradients of a matrix that are held at once: few enough to stay in a core's cache until they are read.
HELD_AT_ONCE = 2**18

# Modules whose output is linear in their own parameters, by the name of their class.
LINEAR_IN_WEIGHTS = {"Linear", "Embedding", "LayerNorm", "Conv1D", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm"}


def directional_derivatives(
    model: PreTrainedModel, batches: Sequence[TargetBatch], directions: Sequence[Direction], examples: int
) -> np.ndarray:
    """<D, grad loss(z')> for every example z' and each direction D.

    Args:
        model: in evaluation mode; it is left as it was.
        batches: the examples, on the model's device.
        directions: for each a tensor for every trainable parameter, by name; a shared weight has one name.
        examples: how many the batches hold together.

    Returns:
        `[directions, examples]` float32.
    """
    derivatives = np.zeros((len(directions), examples), dtype=np.float32)
    route, local = logit_route(model), supports_local(model)
    for batch in batches:
        together = local and not route.needs_alone(int(batch.lengths.max()) + 1)
        each = local_derivatives(model, batch, directions) if together else None
        if each is None:
            try:
                each = forward_derivatives(model, batch, directions)
            except (NotImplementedError, RuntimeError):
                # Kernels of experts and some others know no forward mode.
                each = reverse_derivatives(model, batch, directions)
        derivatives[:, batch.rows] = each.cpu().numpy()
    return derivatives


def reverse_derivatives(model: PreTrainedModel, batch: TargetBatch, directions: Sequence[Direction]) -> torch.Tensor:
    """By a backward pass for each row: `[directions, rows]`. Any model that can be trained will do."""
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
    """By forward mode through the whole model: `[directions, rows]`. Any model will do."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    logit_route(model)
    losses = ExampleLosses(model)
    weights = {f"model.{name}": value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def of(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(losses, values, (batch,))

    result = []
    # Only this attention kernel knows forward mode; torch's own rules for it still come through a deprecated door.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for direction in directions:
            tangent = {name: direction[name.removeprefix("model.")] for name in weights}
            result.append(torch.func.jvp(of, (weights,), (tangent,))[1].detach())
    return torch.stack(result)


class ExampleLosses(torch.nn.Module):
    """A model as a module that gives each example's loss: `[rows]`, of a batch."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TargetBatch) -> torch.Tensor:
        """See above."""
        return example_losses(target_logits(self.model, batch), batch)


def _own(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(module.named_parameters(recurse=False))


def _trained(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Modules that hold a trainable parameter themselves."""
    return [module for module in model.modules() if any(each.requires_grad for each in _own(module).values())]


def supports_local(model: PreTrainedModel) -> bool:
    """Whether every trainable parameter belongs to a module that is linear in it."""
    return all(type(module).__name__ in LINEAR_IN_WEIGHTS for module in _trained(model))


@dataclass
class _Call:
    """One use of a module: what went in, what came out."""

    module: torch.nn.Module
    given: torch.Tensor
    result: torch.Tensor


def local_derivatives(
    model: PreTrainedModel, batch: TargetBatch, directions: Sequence[Direction]
) -> torch.Tensor | None:
    """By one forward pass, one backward pass to activations, and forward mode within each module: `[directions, rows]`.

    A module f that is linear in its own weights W changes its output along W' by f with W' for W, at the same input.
    With d the gradient of the sum of all losses with respect to that output (examples do not mix), the derivative of
    an example's loss is the sum over modules and the example's tokens of <d, f_W'(input)>. Of a linear layer with long
    inputs that is taken as <sum of d input^T, W'>, where the sum serves all directions. None if an output is shared by
    the rows of the batch or mixes them, or a module is not called but its weights are read.
    """
    # Before the hooks, so that they see no probe of the model.
    logit_route(model)
    calls: list[_Call] = []
    first = model.get_input_embeddings()

    def keep(module: torch.nn.Module, given: tuple[Any, ...], result: torch.Tensor) -> torch.Tensor:
        if not result.requires_grad or module is first:
            result = result.detach().requires_grad_(True)
        calls.append(_Call(module, given[0].detach(), result))
        return result

    modules = list(dict.fromkeys([first, *_trained(model)]))
    handles = [module.register_forward_hook(keep) for module in modules]
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
    found = deltas[0].new_zeros(len(directions), rows)
    with torch.no_grad():
        for call, delta in zip(calls, deltas, strict=True):
            own = _own(call.module)
            if not any(value.requires_grad for value in own.values()):
                continue
            tangents = [
                {
                    key: direction[names[id(value)]] if value.requires_grad else torch.zeros_like(value)
                    for key, value in own.items()
                }
                for direction in directions
            ]
            if type(call.module) is torch.nn.Linear and delta.dim() == 3 and delta.size(1) >= LONG_INPUT:
                found += _by_gradients(call.given, delta, tangents)
                continue
            for index, tangent in enumerate(tangents):
                change = torch.func.functional_call(call.module, tangent, (call.given,))
                if change.dim() == 3:
                    found[index] += torch.linalg.vecdot(change.flatten(1), delta.flatten(1))
                else:
                    found[index].index_add_(0, batch.row, torch.linalg.vecdot(change, delta))
    return found


def _by_row(model: PreTrainedModel, batch: TargetBatch, modules: list[torch.nn.Module], calls: list[_Call]) -> bool:
    """Whether every module was called, and what comes out of it belongs to the rows, or to the targets, one by one."""
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


def _by_gradients(given: torch.Tensor, delta: torch.Tensor, tangents: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Of a linear layer: its gradient for each row, times each direction: `[directions, rows]`.

    Args:
        given: what went in, `[rows, tokens, in]`.
        delta: gradient with respect to what came out, `[rows, tokens, out]`.
        tangents: for each direction its `weight` `[out, in]`, and its `bias` where the layer has one.
    """
    weights = torch.stack([tangent["weight"].flatten() for tangent in tangents])
    at_once = max(1, HELD_AT_ONCE // weights.size(1))
    parts = [
        weights @ torch.bmm(some_delta.mT, some_given).flatten(1).T
        for some_given, some_delta in zip(given.split(at_once), delta.split(at_once), strict=True)
    ]
    result = torch.cat(parts, 1)
    if "bias" in tangents[0]:
        result += torch.stack([tangent["bias"] for tangent in tangents]) @ delta.sum(1).T
    return result
