"""Seeded batched sampling: the text of an example does not depend on what it is batched with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.tokens import length_sorted_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 8192
# Tokens looked at first; more only if these hold less than top-p of the probability.
LIKELIEST = 32


def sample_tokens(logits: torch.Tensor, draws: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """One token for each row by nucleus sampling with given uniform draws.

    Args:
        logits: `[rows, vocabulary]`.
        draws: `[rows]` in [0, 1).
        temperature: divides the logits.
        top_p: the smallest set of likeliest tokens with at least this much probability is kept.

    Returns:
        `[rows]` token ids: the token at which the kept probability, likeliest first, passes the draw.
    """
    scaled = logits.float() / temperature
    normaliser = scaled.logsumexp(-1, keepdim=True)
    count = min(LIKELIEST, logits.size(-1))
    while True:
        value, token = scaled.topk(count, dim=-1)
        upto = (value - normaliser).double().exp().cumsum(-1)
        if count == logits.size(-1) or bool((upto[:, -1] >= top_p).all()):
            break
        count = min(8 * count, logits.size(-1))
    before = torch.nn.functional.pad(upto[:, :-1], (1, 0))
    kept = (before < top_p).sum(-1)
    total = upto.gather(-1, kept.unsqueeze(-1) - 1)
    place = torch.minimum((upto <= draws.unsqueeze(-1) * total).sum(-1), kept - 1)
    return token.gather(-1, place.unsqueeze(-1)).squeeze(-1)


class Generator:
    """Samples continuations of fixed prompts with a key-value cache.

    Args:
        tokenizer: decodes, and names the end of text.
        prompts: token ids of each prompt.
        new_tokens: at most this many for each prompt.
        temperature, top_p: of the sampling.
        batch_tokens: of a batch, prompts and new tokens with padding.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Sequence[int]],
        new_tokens: int | Sequence[int],
        temperature: float,
        top_p: float,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.new_tokens = [new_tokens] * len(prompts) if isinstance(new_tokens, int) else list(new_tokens)
        self.temperature = temperature
        self.top_p = top_p
        self.end = int(tokenizer.eos_token_id)
        lengths = [len(prompt) + new for prompt, new in zip(prompts, self.new_tokens, strict=True)]
        self.batches = length_sorted_batches(lengths, batch_tokens)

    def sample(self, model: PreTrainedModel, seeds: Sequence[Sequence[int]]) -> list[str]:
        """One sampled text for each prompt, up to the end of text.

        Args:
            model: in evaluation mode.
            seeds: entropy of each prompt's own random numbers.
        """
        texts = [""] * len(self.prompts)
        for rows in self.batches:
            most = max(self.new_tokens[at] for at in rows)
            draws = np.stack([np.random.default_rng(list(seeds[at])).random(most) for at in rows])
            for at, ids in zip(rows, self._sample_batch(model, rows, torch.from_numpy(draws)), strict=True):
                texts[at] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return texts

    @torch.no_grad()
    def _sample_batch(self, model: PreTrainedModel, rows: list[int], draws: torch.Tensor) -> list[list[int]]:
        longest = max(len(self.prompts[at]) for at in rows)
        most = draws.size(1)
        ids = torch.full((len(rows), longest), self.end)
        mask = torch.zeros((len(rows), longest + most), dtype=torch.long)
        for place, at in enumerate(rows):
            prompt = self.prompts[at]
            ids[place, longest - len(prompt) :] = torch.tensor(list(prompt))
            mask[place, longest - len(prompt) :] = 1
        position = (mask[:, :longest].cumsum(-1) - 1).clamp(min=0)
        limit = torch.tensor([self.new_tokens[at] for at in rows])
        ids, mask, position, limit, draws = (each.to(model.device) for each in (ids, mask, position, limit, draws))
        sampled: list[list[int]] = [[] for _ in rows]
        active = list(range(len(rows)))
        cache = None
        for new in range(most):
            out = model(
                input_ids=ids,
                attention_mask=mask[:, : longest + new],
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = out.past_key_values
            token = sample_tokens(out.logits[:, -1], draws[:, new], self.temperature, self.top_p)
            ended = token == self.end
            for row, one, stop in zip(active, token.tolist(), ended.tolist(), strict=True):
                if not stop:
                    sampled[row].append(one)
            going = ~ended & (limit > new + 1)
            if not going.any():
                break
            if not going.all():
                keep = going.nonzero().squeeze(-1)
                cache.batch_select_indices(keep)
                active = [active[at] for at in keep.tolist()]
                token, mask, draws, position, limit = (each[keep] for each in (token, mask, draws, position, limit))
            ids = token.unsqueeze(-1)
            position = position[:, -1:] + 1
        return sampled
