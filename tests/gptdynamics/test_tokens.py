from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.base_model import BaseModel
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.tokens import (
    TokenizedExample,
    length_sorted_batches,
    make_target_batch,
    tokenize_example,
    tokenize_text,
)


def example(prompt: str, target: str = " yes") -> Example:
    return Example(id=7, prompt=prompt, target=target, task="rte")


def test_prompt_and_target_are_tokenised_apart_and_end_of_text_is_added_on_request(tiny_base: BaseModel) -> None:
    tokenizer = tiny_base.tokenizer
    plain = tokenize_example(tokenizer, example("The cat"), 64, end_of_text=False)
    ended = tokenize_example(tokenizer, example("The cat"), 64, end_of_text=True)
    assert plain.prompt == tokenize_text(tokenizer, "The cat")
    assert plain.target == tokenize_text(tokenizer, " yes")
    assert ended.target == [*plain.target, tokenizer.eos_token_id]
    assert (plain.cut, len(plain)) == (0, len(plain.prompt) + len(plain.target))


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
    with pytest.raises(DataError, match="rte example 7: its target has 9 tokens, the context only 8"):
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
examples_of_any_length = st.lists(st.builds(TokenizedExample, prompt=ids, target=ids), min_size=1, max_size=6)


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
