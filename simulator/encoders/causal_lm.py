"""Hidden states of a causal language model: any GPT as an encoder (figure 5 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gptdynamics.configs import Tokenization
from gptdynamics.examples import Example
from gptdynamics.runs.devices import worker_devices

if TYPE_CHECKING:
    from gptdynamics.models.base_model import BaseModel

# Tokens in a forward pass, with padding.
BATCH_TOKENS = 8192


class CausalLMEncoder:
    """States of the last layer over the tokens of prompt and target, pooled to one vector.

    Args:
        model: `nano`, a Pythia size, a Hub id or a folder.
        pooling: `mean` over tokens, or the state of the `first` or the `last` one. In a causal model the first token
            sees nothing but itself, the last one everything.
        tokenization: of prompt and target; see `gptdynamics.models.tokens.tokenize_example`.
    """

    def __init__(self, model: str, pooling: str = "mean", tokenization: Tokenization = "joined") -> None:
        self.model_name = model
        self.pooling = pooling
        self.tokenization = tokenization

    def describe(self) -> dict[str, Any]:
        """Its name, model with revision, pooling and tokenization."""
        from gptdynamics.models.base_model import model_revision

        return {
            "encoder": "causal_lm",
            "model": self.model_name,
            "revision": model_revision(self.model_name),
            "pooling": self.pooling,
            "tokenization": self.tokenization,
        }

    @cached_property
    def base(self) -> BaseModel:
        """The loaded model.

        Raises:
            SettingsError: it is neither a folder nor on a reachable Hub.
        """
        from gptdynamics.models.base_model import load_base_model

        return load_base_model(self.model_name, worker_devices("auto")[0])

    def _tokens(self, example: Example) -> list[int]:
        """As the model trained on the example sees it; of a text that is too long the left is left out."""
        from gptdynamics.models.tokens import tokenize_parts

        begin, *parts = tokenize_parts(self.base.tokenizer, example.prompt, example.target, self.tokenization)
        text = [token for part in parts for token in part]
        room = max(1, self.base.context - len(begin))
        return [*begin, *text[-room:]] or [int(self.base.tokenizer.eos_token_id)]

    @torch.inference_mode()
    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, hidden size of the model]`."""
        from gptdynamics.models.tokens import length_sorted_batches

        tokens = [self._tokens(example) for example in examples]
        body, device = self.base.model.base_model, self.base.model.device
        vectors: dict[int, np.ndarray] = {}
        for rows in length_sorted_batches([len(ids) for ids in tokens], BATCH_TOKENS):
            lengths = torch.tensor([len(tokens[row]) for row in rows])
            # Padded on the right, which a causal model does not see from the left.
            padded = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
            for index, row in enumerate(rows):
                padded[index, : lengths[index]] = torch.tensor(tokens[row])
            states = body(input_ids=padded.to(device), use_cache=False).last_hidden_state.float().cpu()
            vectors.update(zip(rows, self._pooled(states, lengths).numpy(), strict=True))
        return np.stack([vectors[row] for row in range(len(examples))])

    def _pooled(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """`[rows, width]` of states `[rows, longest, width]`."""
        if self.pooling == "first":
            return states[:, 0]
        if self.pooling == "last":
            return states[torch.arange(len(states)), lengths - 1]
        inside = torch.arange(states.size(1)) < lengths.unsqueeze(1)
        return (states * inside.unsqueeze(-1)).sum(1) / lengths.unsqueeze(1)
