"""Examples as token ids, cut to the context, and batches of them with little padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from gptdynamics.configs import Tokenization
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.tasks import generates

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from gptdynamics.models.base_model import BaseModel


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids of one example.

    Attributes:
        ids: the whole sequence.
        scored: positions in `ids`, ascending and at least 1, of the tokens with a loss.
        prompt_length: number of ids before the text that a model would generate; at least 1.
        cut: number of prompt tokens that were cut to fit the context.
    """

    ids: list[int]
    scored: list[int]
    prompt_length: int
    cut: int = 0

    @classmethod
    def from_parts(cls, prompt: Sequence[int], target: Sequence[int], cut: int = 0) -> TokenizedExample:
        """An example in which the tokens of the target, which follow the prompt, have a loss."""
        ids = [*prompt, *target]
        return cls(ids, list(range(len(prompt), len(ids))), len(prompt), cut)

    @property
    def prompt(self) -> list[int]:
        """Ids before the text that a model would generate."""
        return self.ids[: self.prompt_length]

    @property
    def target(self) -> list[int]:
        """The ids with a loss."""
        return [self.ids[position] for position in self.scored]

    @property
    def input_length(self) -> int:
        """Number of input tokens to predict the target: all up to the one before the last scored token."""
        return self.scored[-1]

    @property
    def ids_of_loss(self) -> list[int]:
        """Ids up to the last one with a loss, as later ones do not change the loss."""
        return self.ids[: self.scored[-1] + 1] if self.scored else []

    def has_same_loss(self, other: TokenizedExample) -> bool:
        """Whether every model has the same loss on both: the same `scored` and the same ids up to the last of these."""
        return self.scored == other.scored and self.ids_of_loss == other.ids_of_loss

    def __len__(self) -> int:
        return len(self.ids)


def tokenize_text(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False) -> list[int]:
    """Ids of `text`; with `special`, also the special tokens that the tokenizer's settings add."""
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(first, second, strict=False))
    return next(
        (index for index, (first_id, second_id) in pairs if first_id != second_id), min(len(first), len(second))
    )


class JoinedIds(NamedTuple):
    """Ids of a prompt and a target that were tokenised as one text.

    Attributes:
        ids: with the special tokens that the tokenizer added.
        start, boundary, end: positions at which the prompt begins, the target begins, and the target ends.
    """

    ids: list[int]
    start: int
    boundary: int
    end: int


def join_and_tokenize(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str, special: bool) -> JoinedIds:
    """Tokenise prompt and target as one text. A token with characters of both belongs to the target."""
    encoding = tokenizer(
        prompt + target,
        add_special_tokens=special,
        return_special_tokens_mask=True,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    ids = list(encoding["input_ids"])
    # Without `special`, all special tokens come from the text itself.
    is_special = encoding["special_tokens_mask"] if special else [0] * len(ids)
    text_positions = [index for index, is_added in enumerate(is_special) if not is_added]
    if not text_positions:
        return JoinedIds(ids, len(ids), len(ids), len(ids))
    start, end = text_positions[0], text_positions[-1] + 1
    if tokenizer.is_fast:
        text_ends = [text_end for _, text_end in encoding["offset_mapping"]]
        boundary = next((index for index in range(start, end) if text_ends[index] > len(prompt)), end)
    else:
        # Slow tokenizers have no offsets: the prompt ends where the ids differ from those of the prompt alone.
        boundary = common_prefix(tokenize_text(tokenizer, prompt, special), ids[:end]) if prompt else start
    return JoinedIds(ids, start, max(start, boundary), end)


def tokenize_example(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    context: int,
    end_of_text: bool,
    target: str | None = None,
    rule: Tokenization = "joined",
) -> TokenizedExample:
    """Token ids of a prompt and its target; the prompt of a sequence that is too long is cut from the left.

    Args:
        tokenizer: of the base model.
        example: what to tokenise.
        context: longest sequence in tokens.
        end_of_text: whether the target ends with the end-of-text token.
        target: a target that replaces the example's (another label).
        rule: `joined`, as trainers do: prompt and target are one text, tokenised once, with the special token that the
            tokenizer's settings add before it (such as `<s>` of Llama, Gemma and Mistral). `separate`: each is
            tokenised alone, without special tokens, as in releases that record no rule.

    Raises:
        DataError: the target has no tokens, or does not fit in the context.
    """
    text = example.target if target is None else target
    begin, prompt, ids = tokenize_parts(tokenizer, example.prompt, text, rule)
    if end_of_text and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(int(tokenizer.eos_token_id))
    if not ids:
        raise DataError(f"{example.task} example {example.id}: its target has no tokens. Leave it out")
    room = context - len(begin) - len(ids)
    if room < 0 or (not begin and not room):
        raise DataError(
            f"{example.task} example {example.id}: its target has {len(ids)} tokens, which do not fit in the context "
            f"of {context}. Leave it out, or increase max_length"
        )
    cut = max(0, len(prompt) - room)
    # Without a prompt, an end-of-text token precedes the target, so that its first token can be predicted.
    context_ids = [*begin, *prompt[cut:]] or [int(tokenizer.eos_token_id)]
    return TokenizedExample.from_parts(context_ids, ids, cut)


def tokenize_parts(
    tokenizer: PreTrainedTokenizerBase, prompt: str, target: str, rule: Tokenization
) -> tuple[list[int], list[int], list[int]]:
    """Ids of the special tokens at the start, of the prompt, and of the target, by a rule of `tokenize_example`.

    Special tokens that the tokenizer's settings put at the end are left out.
    """
    if rule == "separate":
        return [], tokenize_text(tokenizer, prompt), tokenize_text(tokenizer, target)
    # Texts of chat templates may already begin with the special token.
    special = not (tokenizer.bos_token and (prompt + target).startswith(tokenizer.bos_token))
    ids, start, boundary, end = join_and_tokenize(tokenizer, prompt, target, special)
    return ids[:start], ids[start:boundary], ids[boundary:end]


class ExampleTokenizer:
    """Tokenises the examples of a config.

    Args:
        base: the base model, for its tokenizer and context.
        max_length: longest sequence in tokens; the base model's context may be shorter.
        rule: see `tokenize_example`.
    """

    def __init__(self, base: BaseModel, max_length: int, rule: Tokenization = "joined") -> None:
        self.tokenizer = base.tokenizer
        self.context = min(base.context, max_length)
        self.vocabulary = base.vocabulary
        self.rule = rule

    def __call__(self, example: Example, target: str | None = None) -> TokenizedExample:
        """Tokenise an example; targets of generation tasks get an end-of-text token.

        Args:
            example: of a registered task.
            target: a target that replaces the example's (another label).

        Raises:
            DataError: see `tokenize_example`; or the model has no embedding of a token.
        """
        tokens = tokenize_example(self.tokenizer, example, self.context, generates(example), target, self.rule)
        if max(tokens.ids) >= self.vocabulary:
            largest = max(tokens.ids)
            raise DataError(
                f"{example.task} example {example.id}: its token {self.tokenizer.convert_ids_to_tokens(largest)!r} has "
                f"id {largest}, but the model has only {self.vocabulary} embeddings: the tokenizer belongs to another "
                "model, or tokens were added to it. Resize the model (resize_token_embeddings) and save it, or give "
                "its own tokenizer"
            )
        return tokens


def length_sorted_batches(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, each of at most `most_tokens` tokens with padding.

    Args:
        lengths: tokens of each item.
        most_tokens: limit of rows times longest row; a longer item becomes a batch of one.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= most_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@dataclass(frozen=True)
class TargetBatch:
    """Right-padded inputs and the positions of their targets.

    Attributes:
        rows: indices of the examples, in order.
        input_ids: `[rows, longest]`.
        lengths: `[rows]` tokens of each row without padding.
        row: `[targets]` row of each target token.
        position: `[targets]` the position that predicts it.
        target: `[targets]` its id.
        counts: `[rows]` number of target tokens.
    """

    rows: list[int]
    input_ids: torch.Tensor
    lengths: torch.Tensor
    row: torch.Tensor
    position: torch.Tensor
    target: torch.Tensor
    counts: torch.Tensor

    def to(self, device: torch.device) -> TargetBatch:
        """The same batch with its tensors on `device`."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if name != "rows"}
        return replace(self, **tensors)


def make_target_batch(examples: Sequence[TokenizedExample], rows: list[int], pad: int = 0) -> TargetBatch:
    """Pad the chosen examples on the right; `rows` are indices into `examples`.

    The last target token is not in the input, as nothing is predicted from it.
    """
    import torch

    chosen = [examples[index] for index in rows]
    longest = max(example.input_length for example in chosen)
    input_ids = torch.full((len(chosen), longest), pad)
    row: list[int] = []
    position: list[int] = []
    target: list[int] = []
    for index, example in enumerate(chosen):
        input_ids[index, : example.input_length] = torch.tensor(example.ids[: example.input_length])
        row += [index] * len(example.scored)
        position += [scored - 1 for scored in example.scored]
        target += example.target
    return TargetBatch(
        rows=rows,
        input_ids=input_ids,
        lengths=torch.tensor([example.input_length for example in chosen]),
        row=torch.tensor(row),
        position=torch.tensor(position),
        target=torch.tensor(target),
        counts=torch.tensor([len(example.scored) for example in chosen]),
    )
