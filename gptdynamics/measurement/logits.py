"""The logits that predict target tokens: exactly those of the model's own `forward`, at target positions only.

Many architectures do more than multiply the last hidden state by the output embeddings: they cap, scale or shift it. A
short run of `forward`, once for each model, shows which way of saving work gives the same numbers (`LogitRoute`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from gptdynamics.errors import SettingsError
from gptdynamics.models.tokens import TargetBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROUTE = "_gptdynamics_logit_route"
# Lengths of the two sequences that a model is tried on.
_LONG, _SHORT = 12, 7
# Kernels differ by less for the same computation, relative to the largest logit; another computation differs by more.
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8}
_ROUGH = 0.05


@dataclass(frozen=True)
class LogitRoute:
    """How a model's logits at target positions are had with the least work that gives the numbers of its `forward`.

    Attributes:
        kind: `head`: the output embeddings of the hidden states at those positions; `positions`: `forward` with those
            positions as `logits_to_keep`; `whole`: `forward` for all positions.
        masked: whether `forward` is given an attention mask: without one, padding changes its numbers.
        alone: whether each sequence is computed by itself: other rows of a batch change its numbers.
        longest_short: tokens up to which a sequence has other rotary frequencies than a longer one (LongRoPE takes
            those of the longest in a batch); None where length changes nothing.
    """

    kind: Literal["head", "positions", "whole"]
    masked: bool = False
    alone: bool = False
    longest_short: int | None = None

    def needs_alone(self, longest: int) -> bool:
        """Whether the sequences of a batch, the longest of which has so many tokens, are computed by themselves."""
        return self.alone or (self.longest_short is not None and longest > self.longest_short)


def target_logits(model: PreTrainedModel, batch: TargetBatch) -> torch.Tensor:
    """Logits that predict the target tokens: `[targets, vocabulary]`.

    Args:
        model: in any mode; under autocast, too.
        batch: on the model's device.

    Raises:
        SettingsError: the model's `forward` gives no logits of a causal language model; see `logit_route`.
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
            # Later tokens change nothing but which frequencies the length asks for.
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
    given = forward_arguments(model, input_ids, lengths if route.masked else None)
    if route.kind == "head":
        hidden = model.base_model(**given).last_hidden_state
        head: Any = model.get_output_embeddings()
        return head(hidden[row, position])
    if route.kind == "positions":
        kept, place = torch.unique(position, return_inverse=True)
        return model(**given, logits_to_keep=kept).logits[row, place]
    return model(**given).logits[row, position]


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
    """One forward pass, without logits where they are a layer of their own, to its end on any device."""
    body = model.base_model if logit_route(model).kind == "head" else model
    result: Any = body(**forward_arguments(model, input_ids))
    result[0].sum().item()


def forward_arguments(
    model: PreTrainedModel, input_ids: torch.Tensor, lengths: torch.Tensor | None = None
) -> dict[str, Any]:
    """What `forward` is given: ids, no cache, and with `lengths` a mask of the right padding."""
    given: dict[str, Any] = {"input_ids": input_ids}
    if accepts(model, "use_cache"):
        given["use_cache"] = False
    if lengths is not None:
        places = torch.arange(input_ids.size(1), device=input_ids.device)
        given["attention_mask"] = (places < lengths.unsqueeze(1)).long()
    return given


def accepts(model: PreTrainedModel, name: str) -> bool:
    """Whether the model's `forward` names this argument."""
    return name in inspect.signature(type(model).forward).parameters


def logit_route(model: PreTrainedModel) -> LogitRoute:
    """How a model's logits are taken; tried once for each model, and remembered by its copies.

    Raises:
        SettingsError: `forward` fails on plain token ids, is random, or sees later tokens: it is no causal language
            model.
    """
    route = vars(model).get(_ROUTE)
    if route is None:
        route = _find_route(model)
        vars(model)[_ROUTE] = route
    return route


def _find_route(model: PreTrainedModel) -> LogitRoute:
    modes = [(module, module.training) for module in model.modules()]
    kind = model.device.type
    model.eval()
    try:
        # Training may be under autocast, and must go on with the random numbers that it had.
        with (
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
            torch.random.fork_rng([model.device] if kind == "cuda" else []),
        ):
            return replace(_Probe(model).route(), longest_short=_longest_short(model))
    except SettingsError:
        raise
    except Exception as error:  # an architecture's own code fails in its own ways
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"{type(model).__name__}: its forward fails on token ids alone ({type(error).__name__}: {reason}). "
            "Give a causal language model that takes input_ids"
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def _longest_short(model: PreTrainedModel) -> int | None:
    """Tokens up to which LongRoPE takes its short frequencies; None: a model has none."""
    given = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    # By layer type, or for all layers.
    kinds = [given, *(each for each in given.values() if isinstance(each, dict))]
    limits = [each["original_max_position_embeddings"] for each in kinds if each.get("rope_type") == "longrope"]
    return min(limits, default=None)


class _Probe:
    """Two sequences, by themselves and as a padded batch, through a model in evaluation mode."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        ids = _plain_ids(model)
        generator = torch.Generator().manual_seed(0)
        drawn = [ids[torch.randint(len(ids), (length,), generator=generator)] for length in (_LONG, _SHORT)]
        self.long, self.short = (each.unsqueeze(0).to(model.device) for each in drawn)
        self.lengths = torch.tensor([_LONG, _SHORT], device=model.device)
        self.padded = torch.zeros((2, _LONG), dtype=torch.long, device=model.device)
        self.padded[0], self.padded[1, :_SHORT] = self.long[0], self.short[0]

    def logits(self, input_ids: torch.Tensor, lengths: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
        return self.model(**forward_arguments(self.model, input_ids, lengths), **more).logits

    def route(self) -> LogitRoute:
        name = type(self.model).__name__
        whole = self.logits(self.long)
        if whole.shape[:2] != self.long.shape:
            raise SettingsError(f"{name}: its forward gives no logits for every token. Give a causal language model")
        if not same(self.logits(self.long), whole):
            raise SettingsError(f"{name}: its forward gives other logits each time. Nothing can be measured of it")
        if not same(self.logits(self.long[:, :_SHORT]), whole[:, :_SHORT]):
            raise SettingsError(
                f"{name} is not a causal language model: what it predicts from a token depends on later ones. "
                "Give a decoder (for encoders of BERT's kind: one with is_decoder)"
            )
        if self._labels_in_place(whole[0]):
            raise SettingsError(
                f"{name} takes labels that are shifted already, as the decoder of an encoder-decoder does: its loss is "
                "not that of the next token. Give a causal language model"
            )
        short = self.logits(self.short)
        for masked in (False, True):
            batch = self.logits(self.padded, self.lengths if masked else None)
            if same(batch[0], whole[0]) and same(batch[1, :_SHORT], short[0]):
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
        whole = self.logits(input_ids, lengths)
        if self._head_is_all(input_ids, lengths):
            return "head"
        kept = torch.tensor([1, 4, 5], device=input_ids.device)
        try:
            chosen = self.logits(input_ids, lengths, logits_to_keep=kept)
        except Exception:  # not every architecture takes positions
            return "whole"
        return "positions" if chosen.shape == whole[:, kept].shape and same(chosen, whole[:, kept]) else "whole"

    def _head_is_all(self, input_ids: torch.Tensor, lengths: torch.Tensor | None) -> bool:
        """Whether `forward` hands the hidden states to the output embeddings as they are, and gives out their result.

        A cap or a clamp cannot be seen where all logits are small. So wild values stand in for the hidden states and
        for what the output embeddings make of them: they must arrive bit for bit.
        """
        model, head = self.model, self.model.get_output_embeddings()
        body = model.base_model
        if not isinstance(head, torch.nn.Module) or body is model:
            return False
        generator = torch.Generator().manual_seed(1)
        states: list[torch.Tensor] = []
        given: list[torch.Tensor] = []
        results: list[torch.Tensor] = []

        def wild(like: torch.Tensor) -> torch.Tensor:
            sizes = 10 ** (torch.rand(like.shape, generator=generator) * 8 - 3)
            return (torch.randn(like.shape, generator=generator) * sizes).to(like)

        def replace_states(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
            states.append(wild(output.last_hidden_state))
            output["last_hidden_state"] = states[-1]
            return output

        def replace_result(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            given.append(inputs[0])
            results.append(wild(output))
            return results[-1]

        handles = [body.register_forward_hook(replace_states), head.register_forward_hook(replace_result)]
        try:
            logits = self.logits(input_ids, lengths)
        except Exception:  # a model that fails on other states does more than hand them on
            return False
        finally:
            for handle in handles:
                handle.remove()
        once = len(states) == len(given) == 1
        return once and torch.equal(states[0], given[0]) and torch.equal(results[0].to(logits), logits)


def _plain_ids(model: PreTrainedModel) -> torch.Tensor:
    """Token ids without those that the configuration gives a meaning of their own (padding, images)."""
    config = model.config.get_text_config()
    rows = model.get_input_embeddings().weight.size(0)
    size = min(rows, int(getattr(config, "vocab_size", rows) or rows))
    special = {
        value
        for each in (model.config, config)
        for name, value in vars(each).items()
        if isinstance(value, int) and name.endswith(("token_id", "token_index", "pad_index"))
    }
    return torch.tensor([token for token in range(size) if token not in special][:4096])


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors are the same but for rounding; values that are not finite must be in the same places."""
    if left.shape != right.shape:
        return False
    scale = right.abs().nan_to_num(0.0, 0.0, 0.0).max()
    tolerance = float(scale) * _TOLERANCES.get(right.dtype, _ROUGH)
    if right.is_cuda and torch.get_float32_matmul_precision() != "highest":
        # Products are taken with the mantissa of TF32.
        tolerance = max(tolerance, float(scale) * _ROUGH)
    return torch.allclose(left, right, rtol=0, atol=tolerance, equal_nan=True)
