"""The logits that predict target tokens: exactly those of the model's own `forward`, at target positions only.

Many architectures do more than multiply the last hidden state by the output embeddings: they cap, scale or shift it. A
short trial, made once for each model, finds the cheapest computation that gives the same numbers (`LogitRoute`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from gptdynamics.errors import SettingsError
from gptdynamics.models.evaluating import evaluating
from gptdynamics.models.tokens import TargetBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROUTE = "_gptdynamics_logit_route"
# Lengths of the two sequences that a model is tried on.
_LONG, _SHORT = 12, 7
# Differences relative to the largest logit: kernels for one computation differ by less, other computations by more.
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8}
_LOW_PRECISION_TOLERANCE = 0.05


@dataclass(frozen=True)
class LogitRoute:
    """The cheapest way to a model's logits at target positions that gives the same numbers as its `forward`.

    Attributes:
        kind: `head`: apply the output embeddings to the hidden states at those positions; `positions`: call `forward`
            with those positions as `logits_to_keep`; `whole`: call `forward` for all positions.
        masked: whether `forward` needs an attention mask, because padding changes its numbers without one.
        alone: whether each sequence must be computed by itself, because other rows of a batch change its numbers.
        longest_short: longest sequence, in tokens, with LongRoPE's short rotary frequencies (LongRoPE chooses them by
            the longest sequence of a batch); None where the length changes nothing.
    """

    kind: Literal["head", "positions", "whole"]
    masked: bool = False
    alone: bool = False
    longest_short: int | None = None

    def needs_alone(self, longest: int) -> bool:
        """Whether the sequences of a batch whose longest has `longest` tokens must be computed one by one."""
        return self.alone or (self.longest_short is not None and longest > self.longest_short)


def target_logits(model: PreTrainedModel, batch: TargetBatch) -> torch.Tensor:
    """Logits that predict the target tokens: `[targets, vocabulary]`.

    Args:
        model: in any mode, with or without autocast.
        batch: on the model's device.

    Raises:
        SettingsError: the model is not a causal language model; see `logit_route`.
    """
    route = logit_route(model)
    # The last token of a sequence is not fed in, but counts in its length.
    if route.needs_alone(int(batch.lengths.max()) + 1):
        return _one_at_a_time(model, batch, route)
    return _route_logits(model, route, batch.input_ids, batch.lengths, batch.row, batch.position)


def _one_at_a_time(model: PreTrainedModel, batch: TargetBatch, route: LogitRoute) -> torch.Tensor:
    parts = []
    for row, length in enumerate(batch.lengths.tolist()):
        position = batch.position[batch.row == row]
        first_row = torch.zeros_like(position)
        ids = batch.input_ids[row : row + 1, :length]
        if route.longest_short is not None:
            # The extra token changes nothing but the frequencies, which depend on the length.
            ids = torch.nn.functional.pad(ids, (0, 1))
        parts.append(_route_logits(model, route, ids, batch.lengths[row : row + 1], first_row, position))
    return torch.cat(parts)


def _route_logits(
    model: PreTrainedModel,
    route: LogitRoute,
    input_ids: torch.Tensor,
    lengths: torch.Tensor,
    row: torch.Tensor,
    position: torch.Tensor,
) -> torch.Tensor:
    """Logits at `(row[i], position[i])` of right-padded sequences `[rows, longest]`: `[len(row), vocabulary]`."""
    arguments = forward_arguments(model, input_ids, lengths if route.masked else None)
    if route.kind == "head":
        hidden = model.base_model(**arguments).last_hidden_state
        head: Any = model.get_output_embeddings()
        return head(hidden[row, position])
    if route.kind == "positions":
        needed, index = torch.unique(position, return_inverse=True)
        return model(**arguments, logits_to_keep=needed).logits[row, index]
    return model(**arguments).logits[row, position]


def last_logits(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the token after each sequence: `[sequences, vocabulary]`."""
    route = logit_route(model)
    alone = route.needs_alone(max(map(len, sequences)))
    groups = [[sequence] for sequence in sequences] if alone else [sequences]
    parts = []
    for group in groups:
        lengths = torch.tensor([len(sequence) for sequence in group])
        ids = torch.zeros((len(group), int(lengths.max())), dtype=torch.long)
        for row, sequence in enumerate(group):
            ids[row, : len(sequence)] = torch.tensor(list(sequence))
        ids, lengths = ids.to(model.device), lengths.to(model.device)
        rows = torch.arange(len(group), device=model.device)
        parts.append(_route_logits(model, route, ids, lengths, rows, lengths - 1))
    return torch.cat(parts)


def pass_forward(model: PreTrainedModel, input_ids: torch.Tensor) -> None:
    """One forward pass, waiting until its device is done; without logits if these are a separate layer."""
    body = model.base_model if logit_route(model).kind == "head" else model
    result: Any = body(**forward_arguments(model, input_ids))
    result[0].sum().item()


def forward_arguments(
    model: PreTrainedModel, input_ids: torch.Tensor, lengths: torch.Tensor | None = None
) -> dict[str, Any]:
    """Arguments of `forward`: ids, no cache, and with `lengths` an attention mask of the right padding."""
    arguments: dict[str, Any] = {"input_ids": input_ids}
    if accepts(model, "use_cache"):
        arguments["use_cache"] = False
    if lengths is not None:
        places = torch.arange(input_ids.size(1), device=input_ids.device)
        arguments["attention_mask"] = (places < lengths.unsqueeze(1)).long()
    return arguments


def accepts(model: PreTrainedModel, name: str) -> bool:
    """Whether the model's `forward` has a parameter of this name."""
    return name in inspect.signature(type(model).forward).parameters


def logit_route(model: PreTrainedModel) -> LogitRoute:
    """How to compute a model's logits; found by a trial once for each model, and stored on it and its copies.

    Raises:
        SettingsError: `forward` fails on plain token ids, is random, or sees later tokens, so that it is not a causal
            language model.
    """
    route = vars(model).get(_ROUTE)
    if route is None:
        route = _find_route(model)
        vars(model)[_ROUTE] = route
    return route


def _find_route(model: PreTrainedModel) -> LogitRoute:
    kind = model.device.type
    try:
        # The trial may happen within training: it must ignore autocast and leave the random numbers as they were.
        with (
            evaluating(model),
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
            torch.random.fork_rng([model.device] if kind == "cuda" else []),
        ):
            return replace(_Probe(model).route(), longest_short=_longest_short(model))
    except SettingsError:
        raise
    except Exception as error:  # architectures raise various errors
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"{type(model).__name__}: its forward fails on token ids alone ({type(error).__name__}: {reason}). "
            "Give a causal language model that takes input_ids"
        ) from error


def _longest_short(model: PreTrainedModel) -> int | None:
    """The longest sequence, in tokens, with LongRoPE's short frequencies; None for models without LongRoPE."""
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    # Parameters are given for each layer type, or once for all layers.
    kinds = [parameters, *(group for group in parameters.values() if isinstance(group, dict))]
    limits = [group["original_max_position_embeddings"] for group in kinds if group.get("rope_type") == "longrope"]
    return min(limits, default=None)


class _Probe:
    """A trial of a model in evaluation mode, on two sequences, one by one and as a padded batch."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        ids = _plain_ids(model)
        generator = torch.Generator().manual_seed(0)
        drawn = [ids[torch.randint(len(ids), (length,), generator=generator)] for length in (_LONG, _SHORT)]
        self.long, self.short = (sequence.unsqueeze(0).to(model.device) for sequence in drawn)
        self.lengths = torch.tensor([_LONG, _SHORT], device=model.device)
        self.padded = torch.zeros((2, _LONG), dtype=torch.long, device=model.device)
        self.padded[0], self.padded[1, :_SHORT] = self.long[0], self.short[0]

    def logits(self, input_ids: torch.Tensor, lengths: torch.Tensor | None = None, **extra: Any) -> torch.Tensor:
        return self.model(**forward_arguments(self.model, input_ids, lengths), **extra).logits

    def route(self) -> LogitRoute:
        name = type(self.model).__name__
        expected = self.logits(self.long)
        if expected.shape[:2] != self.long.shape:
            raise SettingsError(f"{name}: its forward gives no logits for every token. Give a causal language model")
        if not agree_up_to_rounding(self.logits(self.long), expected):
            raise SettingsError(
                f"{name}: its forward gives different logits for the same input. Give a deterministic model"
            )
        if not agree_up_to_rounding(self.logits(self.long[:, :_SHORT]), expected[:, :_SHORT]):
            raise SettingsError(
                f"{name} is not a causal language model: its logits at a token depend on later tokens. "
                "Give a decoder (for models like BERT: one with is_decoder)"
            )
        if self._labels_in_place(expected[0]):
            raise SettingsError(
                f"{name} expects labels that are already shifted, like the decoder of an encoder-decoder: its loss is "
                "not that of the next token. Give a causal language model"
            )
        short = self.logits(self.short)
        for masked in (False, True):
            batch = self.logits(self.padded, self.lengths if masked else None)
            if agree_up_to_rounding(batch[0], expected[0]) and agree_up_to_rounding(batch[1, :_SHORT], short[0]):
                return LogitRoute(self._kind(self.padded, self.lengths if masked else None), masked)
        return LogitRoute(self._kind(self.long, None), alone=True)

    def _labels_in_place(self, logits: torch.Tensor) -> bool:
        """Whether the model's own loss compares the logits at a token with that token, not with the next one."""
        try:
            loss = self.model(**forward_arguments(self.model, self.long), labels=self.long).loss
        except Exception:  # a model that takes no labels has no loss of its own
            return False
        in_place = torch.nn.functional.cross_entropy(logits.float(), self.long[0])
        shifted = torch.nn.functional.cross_entropy(logits[:-1].float(), self.long[0, 1:])
        return loss is not None and bool((loss - in_place).abs() < (loss - shifted).abs())

    def _kind(self, input_ids: torch.Tensor, lengths: torch.Tensor | None) -> Literal["head", "positions", "whole"]:
        expected = self.logits(input_ids, lengths)
        if self._head_is_all(input_ids, lengths):
            return "head"
        positions = torch.tensor([1, 4, 5], device=input_ids.device)
        try:
            chosen = self.logits(input_ids, lengths, logits_to_keep=positions)
        except Exception:  # not every architecture takes positions
            return "whole"
        return (
            "positions"
            if chosen.shape == expected[:, positions].shape and agree_up_to_rounding(chosen, expected[:, positions])
            else "whole"
        )

    def _head_is_all(self, input_ids: torch.Tensor, lengths: torch.Tensor | None) -> bool:
        """Whether `forward` passes the hidden states unchanged to the output embeddings and returns their output.

        A cap or a clamp has no visible effect on small logits. So hidden states, and the output of the output
        embeddings, are replaced by random values of very different sizes, which must arrive bit for bit.
        """
        model, head = self.model, self.model.get_output_embeddings()
        body = model.base_model
        if not isinstance(head, torch.nn.Module) or body is model:
            return False
        generator = torch.Generator().manual_seed(1)
        states: list[torch.Tensor] = []
        head_inputs: list[torch.Tensor] = []
        results: list[torch.Tensor] = []

        def random_like(values: torch.Tensor) -> torch.Tensor:
            sizes = 10 ** (torch.rand(values.shape, generator=generator) * 8 - 3)
            return (torch.randn(values.shape, generator=generator) * sizes).to(values)

        def replace_states(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
            states.append(random_like(output.last_hidden_state))
            output["last_hidden_state"] = states[-1]
            return output

        def replace_result(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            head_inputs.append(inputs[0])
            results.append(random_like(output))
            return results[-1]

        handles = [body.register_forward_hook(replace_states), head.register_forward_hook(replace_result)]
        try:
            logits = self.logits(input_ids, lengths)
        except Exception:  # a model that fails on other states does more than pass them on
            return False
        finally:
            for handle in handles:
                handle.remove()
        called_once = len(states) == len(head_inputs) == 1
        return called_once and torch.equal(states[0], head_inputs[0]) and torch.equal(results[0].to(logits), logits)


def _plain_ids(model: PreTrainedModel) -> torch.Tensor:
    """Token ids without the special ones of the configuration (padding, images)."""
    config = model.config.get_text_config()
    rows = model.get_input_embeddings().weight.size(0)
    size = min(rows, int(getattr(config, "vocab_size", rows) or rows))
    special = {
        value
        for source in (model.config, config)
        for name, value in vars(source).items()
        if isinstance(value, int) and name.endswith(("token_id", "token_index", "pad_index"))
    }
    return torch.tensor([token for token in range(size) if token not in special][:4096])


def agree_up_to_rounding(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors differ by rounding only; values that are not finite must be in the same places."""
    if first.shape != second.shape:
        return False
    scale = second.abs().nan_to_num(0.0, 0.0, 0.0).max()
    tolerance = float(scale) * _TOLERANCES.get(second.dtype, _LOW_PRECISION_TOLERANCE)
    if second.is_cuda and torch.get_float32_matmul_precision() != "highest":
        # Matrix products use TF32.
        tolerance = max(tolerance, float(scale) * _LOW_PRECISION_TOLERANCE)
    return torch.allclose(first, second, rtol=0, atol=tolerance, equal_nan=True)
