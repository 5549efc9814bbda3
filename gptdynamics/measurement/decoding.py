"""The logits of each next token: with the model's cache, or recomputed if its cache is not exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from gptdynamics.measurement.logits import accepts, agree_up_to_rounding, last_logits, logit_route

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROUTE = "_gptdynamics_decoder"


class CachedDecoder:
    """A batch of prompts that grow by one token at a time, padded on the left; earlier keys and values are cached.

    Args:
        model: in evaluation mode.
        prompts: token ids of each row.
        new_tokens: largest number of tokens that are added.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        self.model = model
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros((len(prompts), longest), dtype=torch.long)
        mask = torch.zeros((len(prompts), longest + new_tokens), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, longest - len(prompt) :] = 1
        self.ids, self.mask = ids.to(model.device), mask.to(model.device)
        self.position = (self.mask[:, :longest].cumsum(-1) - 1).clamp(min=0)
        self.length = longest
        self.cache: Any = None

    def logits(self) -> torch.Tensor:
        """Logits of the next token of each row: `[rows, vocabulary]`."""
        optional: dict[str, Any] = {"position_ids": self.position, "logits_to_keep": 1}
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask[:, : self.length],
            past_key_values=self.cache,
            use_cache=True,
            **{name: value for name, value in optional.items() if accepts(self.model, name)},
        )
        self.cache = out.past_key_values
        return out.logits[:, -1]

    def append(self, token: torch.Tensor, keep: torch.Tensor | None) -> None:
        """Add a token to every row, `[rows]`, and continue with the rows whose indices `keep` has; None: with all."""
        position = self.position[:, -1:] + 1
        if keep is not None:
            self.cache.batch_select_indices(keep)
            token, position, self.mask = token[keep], position[keep], self.mask[keep]
        self.ids, self.position = token.unsqueeze(-1), position
        self.length += 1


class RecomputingDecoder:
    """Like `CachedDecoder`, but passes each whole text through the model for every token: exact, but slow."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        self.model = model
        self.texts = [list(prompt) for prompt in prompts]

    def logits(self) -> torch.Tensor:
        """Logits of the next token of each row: `[rows, vocabulary]`."""
        return last_logits(self.model, self.texts)

    def append(self, token: torch.Tensor, keep: torch.Tensor | None) -> None:
        """Add a token to every row, and continue with some rows only."""
        texts = [[*text, next_token] for text, next_token in zip(self.texts, token.tolist(), strict=True)]
        self.texts = texts if keep is None else [texts[row] for row in keep.tolist()]


Decoder = CachedDecoder | RecomputingDecoder


@torch.no_grad()
def make_decoder(model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> Decoder:
    """A decoder of a batch; with a cache if a short trial, made once for each model, shows that it is exact."""
    kind = vars(model).get(_ROUTE)
    if kind is None:
        kind = CachedDecoder if _cache_is_exact(model) else RecomputingDecoder
        vars(model)[_ROUTE] = kind
    if logit_route(model).needs_alone(max(map(len, prompts)) + new_tokens):
        # The cached keys were computed with the rotary frequencies of a shorter text.
        kind = RecomputingDecoder
    decoder: Decoder = kind(model, prompts, new_tokens)
    return decoder


def _cache_is_exact(model: PreTrainedModel) -> bool:
    prompts, tokens = [[5, 6, 7, 8, 9], [7, 8, 9], [9, 6]], [torch.tensor([6, 5, 8]), torch.tensor([9, 7])]
    keep = torch.tensor([0, 1], device=model.device)
    try:
        cached, plain = CachedDecoder(model, prompts, 3), RecomputingDecoder(model, prompts, 3)
        agree = [agree_up_to_rounding(cached.logits(), plain.logits())]
        for token, kept_rows in zip((each.to(model.device) for each in tokens), (keep, None), strict=True):
            for decoder in (cached, plain):
                decoder.append(token, kept_rows)
            agree.append(agree_up_to_rounding(cached.logits(), plain.logits()))
    except Exception:  # architectures without such a cache raise various errors
        return False
    return all(agree)
