"""The logits of each next token, token after token: with the model's cache, or anew where a cache is not exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from gptdynamics.measurement.logits import accepts, last_logits, logit_route, same

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
        given: dict[str, Any] = {"position_ids": self.position, "logits_to_keep": 1}
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask[:, : self.length],
            past_key_values=self.cache,
            use_cache=True,
            **{name: value for name, value in given.items() if accepts(self.model, name)},
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
    """As `CachedDecoder`, but each whole text goes through the model for every token: exact for any model, and slow."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        self.model = model
        self.texts = [list(prompt) for prompt in prompts]

    def logits(self) -> torch.Tensor:
        """Logits of the next token of each row: `[rows, vocabulary]`."""
        return last_logits(self.model, self.texts)

    def append(self, token: torch.Tensor, keep: torch.Tensor | None) -> None:
        """Add a token to every row, and continue with some rows only."""
        longer = [[*text, one] for text, one in zip(self.texts, token.tolist(), strict=True)]
        self.texts = longer if keep is None else [longer[row] for row in keep.tolist()]


Decoder = CachedDecoder | RecomputingDecoder


@torch.no_grad()
def make_decoder(model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> Decoder:
    """A decoder of a batch: with a cache where a short trial, once for each model, showed that it changes no number."""
    kind = vars(model).get(_ROUTE)
    if kind is None:
        kind = CachedDecoder if _cache_is_exact(model) else RecomputingDecoder
        vars(model)[_ROUTE] = kind
    if logit_route(model).needs_alone(max(map(len, prompts)) + new_tokens):
        # What is cached was made for a shorter text.
        kind = RecomputingDecoder
    decoder: Decoder = kind(model, prompts, new_tokens)
    return decoder


def _cache_is_exact(model: PreTrainedModel) -> bool:
    prompts, tokens = [[5, 6, 7, 8, 9], [7, 8, 9], [9, 6]], [torch.tensor([6, 5, 8]), torch.tensor([9, 7])]
    keep = torch.tensor([0, 1], device=model.device)
    try:
        cached, plain = CachedDecoder(model, prompts, 3), RecomputingDecoder(model, prompts, 3)
        agree = [same(cached.logits(), plain.logits())]
        for token, kept in zip((each.to(model.device) for each in tokens), (keep, None), strict=True):
            for decoder in (cached, plain):
                decoder.append(token, kept)
            agree.append(same(cached.logits(), plain.logits()))
    except Exception:  # an architecture without such a cache fails in its own way
        return False
    return all(agree)
