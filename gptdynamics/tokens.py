"""Examples as token ids, cut to the context, and batches of them with little padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from gptdynamics.errors import DataError
from gptdynamics.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids of one example.

    Attributes:
        prompt: ids before the target, never empty.
        target: ids the loss is the mean over; ends with end of text if text is generated.
        cut: how many prompt tokens were left out to fit the context.
    """

    prompt: list[int]
    target: list[int]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


def tokenize_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` without special tokens."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def tokenize_example(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    context: int,
    end_of_text: bool,
    target: str | None = None,
) -> TokenizedExample:
    """Tokenise prompt and target separately; an input that is too long loses the left of its prompt.

    Args:
        tokenizer: of the base model.
        example: what to tokenise.
        context: longest input in tokens.
        end_of_text: whether the target ends with the end-of-text token.
        target: another target than the example's (another label).

    Raises:
        DataError: the target alone fills the context.
    """
    prompt = tokenize_text(tokenizer, example.prompt)
    ids = tokenize_text(tokenizer, example.target if target is None else target)
    if end_of_text:
        ids.append(int(tokenizer.eos_token_id))
    if not ids:
        raise DataError(f"{example.task} example {example.id}: its target has no tokens")
    if len(ids) >= context:
        raise DataError(
            f"{example.task} example {example.id}: its target has {len(ids)} tokens, the context only {context}"
        )
    cut = max(0, len(prompt) + len(ids) - context)
    prompt = prompt[cut:] or [int(tokenizer.eos_token_id)]
    return TokenizedExample(prompt=prompt, target=ids, cut=cut)


def length_sorted_batches(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, each of at most `most_tokens` tokens with padding.

    Args:
        lengths: tokens of each item.
        most_tokens: limit of rows times longest row; a longer single item is a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda at: (lengths[at], at)):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= most_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@dataclass(frozen=True)
class TargetBatch:
    """Right-padded inputs and the places of their targets. A causal model needs no attention mask here.

    Attributes:
        rows: which examples these are, in order.
        input_ids: `[rows, longest]`.
        row: `[targets]` row of each target token.
        position: `[targets]` the position that predicts it.
        target: `[targets]` its id.
        counts: `[rows]` number of target tokens.
    """

    rows: list[int]
    input_ids: torch.Tensor
    row: torch.Tensor
    position: torch.Tensor
    target: torch.Tensor
    counts: torch.Tensor

    def to(self, device: torch.device) -> TargetBatch:
        """The same batch with its tensors on `device`."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **tensors)


def make_target_batch(examples: Sequence[TokenizedExample], rows: list[int], pad: int = 0) -> TargetBatch:
    """Pad the chosen examples on the right; `rows` are indices into `examples`.

    The last target token is left out of the input: nothing is predicted from it.
    """
    chosen = [examples[at] for at in rows]
    longest = max(len(example) for example in chosen) - 1
    input_ids = torch.full((len(chosen), longest), pad)
    row: list[int] = []
    position: list[int] = []
    target: list[int] = []
    for at, example in enumerate(chosen):
        ids = [*example.prompt, *example.target][:-1]
        input_ids[at, : len(ids)] = torch.tensor(ids)
        row += [at] * len(example.target)
        position += range(len(example.prompt) - 1, len(example.prompt) - 1 + len(example.target))
        target += example.target
    return TargetBatch(
        rows=rows,
        input_ids=input_ids,
        row=torch.tensor(row),
        position=torch.tensor(position),
        target=torch.tensor(target),
        counts=torch.tensor([len(example.target) for example in chosen]),
    )
