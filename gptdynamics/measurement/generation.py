"""Seeded batched sampling: the text of an example does not depend on what it is batched with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.measurement.decoding import make_decoder
from gptdynamics.models.tokens import length_sorted_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A GPU would be idle most of the time.
BATCH_TOKENS, GPU_BATCH_TOKENS = 8192, 65536
# Number of likeliest tokens tried first; more are needed if their probabilities sum to less than top-p.
LIKELIEST = 32
# Upper bound of how far a prompt's logits differ between batches, in units in the last place of the largest logit.
ROUNDING = 16


def sample_tokens(
    logits: torch.Tensor, draws: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample one token for each row by nucleus sampling, with given uniform draws.

    Args:
        logits: `[rows, vocabulary]`.
        draws: `[rows]` in [0, 1).
        temperature: divides the logits.
        top_p: the smallest set of likeliest tokens with at least this much probability is kept.

    Returns:
        `[rows]` token ids: the token at which the cumulative probability, likeliest first, passes the draw; and
        `[rows]` whether it is a tie: rounding errors of the logits could have led to another token.
    """
    scaled = logits.float() / temperature
    normaliser = scaled.logsumexp(-1, keepdim=True)
    count = min(LIKELIEST, logits.size(-1))
    while True:
        value, token = scaled.topk(count, dim=-1)
        cumulative = (value - normaliser).double().exp().cumsum(-1)
        if count == logits.size(-1) or bool((cumulative[:, -1] >= top_p).all()):
            break
        count = min(8 * count, logits.size(-1))
    before = torch.nn.functional.pad(cumulative[:, :-1], (1, 0))

    def place_at(shift: torch.Tensor | float, limit: torch.Tensor | float) -> torch.Tensor:
        kept_count = (before < limit).sum(-1, keepdim=True).clamp(min=1)
        passed = draws.unsqueeze(-1) * cumulative.gather(-1, kept_count - 1) + shift
        return torch.minimum((cumulative <= passed).sum(-1, keepdim=True), kept_count - 1)

    chosen = place_at(0.0, top_p)
    # Errors of d in the logits move a sum of probabilities by less than d, and can swap logits that are within 2 d.
    error = ROUNDING * torch.finfo(logits.dtype).eps * logits.abs().amax(-1, keepdim=True).float() / temperature
    gaps = torch.nn.functional.pad(value[:, :-1] - value[:, 1:], (1, 1), value=torch.inf)
    tied = torch.minimum(gaps.gather(-1, chosen), gaps.gather(-1, chosen + 1)) < 2 * error
    for shift in (-error, error):
        for limit in (top_p - error, top_p + error):
            tied |= place_at(shift, limit) != chosen
    return token.gather(-1, chosen).squeeze(-1), tied.squeeze(-1)


class Generator:
    """Samples continuations of fixed prompts with a key-value cache.

    Args:
        tokenizer: of the model.
        prompts: token ids of each prompt.
        new_tokens: the most new tokens, of all prompts or of each.
        temperature, top_p: of the sampling.
        batch_tokens: the most tokens of a batch: prompts, new tokens and padding.

    Attributes:
        sampled: number of tokens drawn by the last call of `sample`, including end-of-text tokens.
        tied: number of those that rounding errors could have changed, so that a text may depend on its batch.
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
        self.sampled = self.tied = 0
        lengths = [len(prompt) + added for prompt, added in zip(prompts, self.new_tokens, strict=True)]
        self.batches = length_sorted_batches(lengths, batch_tokens)

    def sample(self, model: PreTrainedModel, seeds: Sequence[Sequence[int]]) -> list[str]:
        """One sampled text for each prompt, up to the end of text.

        Args:
            model: in evaluation mode.
            seeds: entropy of each prompt's own random numbers.
        """
        texts = [""] * len(self.prompts)
        self.sampled = self.tied = 0
        for rows in self.batches:
            longest = max(self.new_tokens[row] for row in rows)
            draws = np.stack([np.random.default_rng(list(seeds[row])).random(longest) for row in rows])
            for row, ids in zip(rows, self._sample_batch(model, rows, torch.from_numpy(draws)), strict=True):
                texts[row] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return texts

    @torch.no_grad()
    def _sample_batch(self, model: PreTrainedModel, rows: list[int], draws: torch.Tensor) -> list[list[int]]:
        limit = torch.tensor([self.new_tokens[row] for row in rows], device=model.device)
        draws = draws.to(model.device)
        sampled: list[list[int]] = [[] for _ in rows]
        active = list(range(len(rows)))
        decoder = make_decoder(model, [self.prompts[row] for row in rows], draws.size(1))
        for index in range(draws.size(1)):
            token, tied = sample_tokens(decoder.logits(), draws[:, index], self.temperature, self.top_p)
            ended = token == self.end
            self.sampled += len(active)
            self.tied += int(tied.sum())
            for row, next_token, stop in zip(active, token.tolist(), ended.tolist(), strict=True):
                if not stop:
                    sampled[row].append(next_token)
            unfinished = ~ended & (limit > index + 1)
            if not unfinished.any():
                break
            keep = None if unfinished.all() else unfinished.nonzero().squeeze(-1)
            decoder.append(token, keep)
            if keep is not None:
                active = [active[index] for index in keep.tolist()]
                draws, limit = draws[keep], limit[keep]
        return sampled
