from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.tokens import (
    TokenizedExample,
    length_sorted_batches,
    make_target_batch,
    tokenize_example,
    tokenize_text,
)


def example(prompt: str, target: str = " yes") -> Example:
    return Example(id=7, prompt=prompt, target=target, task="rte")


@pytest.fixture(scope="module")
def sentence_piece() -> PreTrainedTokenizerFast:
    """Of Llama-2's kind: a mark before every text and every space, bytes for other characters, `<s>` at the start."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"nosyex:", "▁y", "▁ye", "▁yes"]
    merges = [("▁", "y"), ("▁y", "e"), ("▁ye", "s")]
    model = models.BPE(
        {piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_that_marks_every_text_marks_the_joined_text_once(
    sentence_piece: PreTrainedTokenizerFast,
) -> None:
    tokens = tokenize_example(sentence_piece, example("x:"), 64, end_of_text=True)
    assert sentence_piece.convert_ids_to_tokens(tokens.prompt) == ["<s>", "▁", "x", ":"]
    assert sentence_piece.convert_ids_to_tokens(tokens.target) == ["▁yes", "</s>"]
    assert tokenize_example(sentence_piece, example("x:"), 64, end_of_text=False).target == tokens.target[:-1]


def test_the_start_of_text_stays_where_a_prompt_is_cut(sentence_piece: PreTrainedTokenizerFast) -> None:
    tokens = tokenize_example(sentence_piece, example("xxxxxx"), 5, end_of_text=False)
    assert sentence_piece.convert_ids_to_tokens(tokens.ids) == ["<s>", "x", "x", "x", "▁yes"]
    assert tokens.cut == 4
    assert len(tokenize_example(sentence_piece, example("xx"), 2, end_of_text=False)) == 2
    with pytest.raises(DataError, match="its target has 2 tokens, which do not fit in the context of 2"):
        tokenize_example(sentence_piece, example("xx"), 2, end_of_text=True)


def test_a_prompt_that_begins_with_the_start_of_text_gets_no_second_one(
    sentence_piece: PreTrainedTokenizerFast,
) -> None:
    tokens = tokenize_example(sentence_piece, example("<s>x:"), 64, end_of_text=False)
    assert sentence_piece.convert_ids_to_tokens(tokens.ids).count("<s>") == 1


pieces_of_text = st.text(st.sampled_from("xyes no:\n\té好🙂"), max_size=12)


class WithoutOffsets:
    """A tokenizer that does not say which characters a token holds."""

    is_fast = False

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.bos_token, self.eos_token_id = tokenizer.bos_token, tokenizer.eos_token_id

    def __call__(self, text: str, return_offsets_mapping: bool = False, **named: object) -> object:
        assert not return_offsets_mapping
        return self.tokenizer(text, **named)


def text_of(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids)).replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")


@given(prompt=pieces_of_text, target=pieces_of_text.filter(len))
def test_the_ids_are_those_of_the_joined_text(
    tiny_base: BaseModel, sentence_piece: PreTrainedTokenizerFast, prompt: str, target: str
) -> None:
    for tokenizer in (tiny_base.tokenizer, sentence_piece):
        tokens = tokenize_example(tokenizer, example(prompt, target), 500, end_of_text=False)
        joined = tokenizer(prompt + target)["input_ids"]
        ids = [joined[:-1]] if tokenizer is sentence_piece else [joined, [0, *joined]]
        assert tokens.ids in ids
        without = tokenize_example(WithoutOffsets(tokenizer), example(prompt, target), 500, end_of_text=False)  # type: ignore[arg-type]
        assert without.ids == tokens.ids
        assert without.prompt_length <= tokens.prompt_length


@given(
    prompt=st.text(st.sampled_from("xyes no:\n"), max_size=12),
    target=st.text(st.sampled_from("xyes no:\n"), min_size=1),
)
def test_the_target_begins_with_the_token_that_holds_its_first_character(
    tiny_base: BaseModel, prompt: str, target: str
) -> None:
    tokenizer = tiny_base.tokenizer
    tokens = tokenize_example(tokenizer, example(prompt, target), 500, end_of_text=False)
    before = text_of(tokenizer, [token for token in tokens.prompt if token != tokenizer.eos_token_id])
    assert prompt.startswith(before)
    assert len(before + text_of(tokenizer, tokens.target[:1])) > len(prompt)
    assert before + text_of(tokenizer, tokens.target) == prompt + target


def test_a_space_at_the_end_of_a_prompt_joins_the_word_after_it(tiny_base: BaseModel) -> None:
    tokenizer = tiny_base.tokenizer
    trailing = tokenize_example(tokenizer, example("The cat ", "yes"), 64, end_of_text=False)
    assert trailing == tokenize_example(tokenizer, example("The cat", " yes"), 64, end_of_text=False)
    apart = tokenize_example(tokenizer, example("The cat ", "yes"), 64, end_of_text=False, rule="separate")
    assert apart.target == tokenize_text(tokenizer, "yes") != trailing.target


def test_end_of_text_is_added_on_request_and_not_twice(tiny_base: BaseModel) -> None:
    tokenizer = tiny_base.tokenizer
    plain = tokenize_example(tokenizer, example("The cat"), 64, end_of_text=False)
    ended = tokenize_example(tokenizer, example("The cat"), 64, end_of_text=True)
    assert plain.prompt == tokenize_text(tokenizer, "The cat")
    assert plain.target == tokenize_text(tokenizer, " yes")
    assert ended.target == [*plain.target, tokenizer.eos_token_id]
    assert (plain.cut, len(plain)) == (0, len(plain.prompt) + len(plain.target))
    written = example("The cat", " yes" + tokenizer.eos_token)
    assert tokenize_example(tokenizer, written, 64, end_of_text=True) == ended


def test_another_target_replaces_the_examples_own(tiny_base: BaseModel) -> None:
    other = tokenize_example(tiny_base.tokenizer, example("The cat"), 64, end_of_text=False, target=" no")
    assert other.target == tokenize_text(tiny_base.tokenizer, " no")


@given(words=st.integers(1, 120), context=st.integers(4, 64))
def test_a_prompt_that_is_too_long_loses_its_left_and_the_loss_is_counted(
    tiny_base: BaseModel, words: int, context: int
) -> None:
    whole = tokenize_text(tiny_base.tokenizer, "x y" * words)
    fitted = tokenize_example(tiny_base.tokenizer, example("x y" * words), context, end_of_text=True)
    assert fitted.cut == max(0, len(whole) + len(fitted.target) - context)
    assert fitted.prompt == whole[fitted.cut :]
    assert len(fitted) == min(context, len(whole) + len(fitted.target))


def test_an_empty_prompt_becomes_the_end_of_text(tiny_base: BaseModel) -> None:
    assert tokenize_example(tiny_base.tokenizer, example(""), 64, end_of_text=False).prompt == [0]


def test_a_target_that_fills_the_context_is_refused_by_task_and_id(tiny_base: BaseModel) -> None:
    with pytest.raises(DataError, match="rte example 7: its target has 9 tokens, which do not fit in the context of 8"):
        tokenize_example(tiny_base.tokenizer, example("The cat", "x y z x y"), 8, end_of_text=False)


def test_a_target_without_tokens_is_refused(tiny_base: BaseModel) -> None:
    with pytest.raises(DataError, match="rte example 7: its target has no tokens"):
        tokenize_example(tiny_base.tokenizer, example("The cat", ""), 8, end_of_text=False)


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 100))
def test_batches_hold_every_index_once_in_order_of_length_within_the_limit(lengths: list[int], limit: int) -> None:
    batches = length_sorted_batches(lengths, limit)
    flat = [at for batch in batches for at in batch]
    assert flat == sorted(range(len(lengths)), key=lambda at: (lengths[at], at))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[at] for at in batch) <= limit


ids = st.lists(st.integers(1, 99), min_size=1, max_size=6)
examples_of_any_length = st.lists(
    st.builds(TokenizedExample.from_parts, prompt=ids, target=ids), min_size=1, max_size=6
)


@given(examples_of_any_length, st.randoms())
def test_every_target_token_is_predicted_from_the_position_before_it(
    examples: list[TokenizedExample], shuffler: object
) -> None:
    rows = list(range(len(examples)))
    shuffler.shuffle(rows)  # type: ignore[attr-defined]
    batch = make_target_batch(examples, rows)
    assert batch.rows == rows
    assert batch.counts.tolist() == [len(examples[at].target) for at in rows]
    expected = []
    for place, at in enumerate(rows):
        whole = [*examples[at].prompt, *examples[at].target]
        assert batch.input_ids[place].tolist()[: len(whole) - 1] == whole[:-1]
        assert not batch.input_ids[place, len(whole) - 1 :].any()
        for position in range(len(whole) - 1):
            if position + 1 >= len(examples[at].prompt):
                expected.append((place, position, whole[position + 1]))
    columns = (batch.row.tolist(), batch.position.tolist(), batch.target.tolist())
    assert list(zip(*columns, strict=True)) == expected
