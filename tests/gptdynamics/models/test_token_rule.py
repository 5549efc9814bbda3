"""A rule that is inferred from what was trained makes the tokens of examples that were not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from gptdynamics.errors import SettingsError
from gptdynamics.models.nano import MODEL_FOLDER
from gptdynamics.models.token_rule import TokenRule, TrainedExample, infer_rule, named_rule

WORDS = st.sampled_from(["yes", "no", "odd.", "One", "two, ", "\n", "dog", "É", "数"])
TEXTS = st.lists(WORDS, min_size=1, max_size=6).map(" ".join).filter(str.strip)
AROUND = st.sampled_from(["", "Q: ", "\nA: ", "###\n", " ", "\n\n"])


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


def made(tokenizer: PreTrainedTokenizerBase, rule: TokenRule, prompt: str, target: str) -> TrainedExample:
    return TrainedExample(prompt, target, rule.tokens(tokenizer, prompt, target))


RULES = st.builds(
    TokenRule,
    text=st.sampled_from(["joined", "separate"]),
    special_tokens=st.just("start"),
    before_prompt=AROUND,
    after_prompt=AROUND,
    after_target=AROUND,
    ending=st.sampled_from([(), (0,)]),
    scored=st.sampled_from(["target", "after_common_prefix", "after_prompt_count", "all"]),
    cut=st.sampled_from(["none", "right", "left", "left_of_prompt"]),
    max_length=st.integers(12, 40),
)


@given(rule=RULES, pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=12, max_size=16))
@settings(deadline=None, max_examples=60)
def test_an_inferred_rule_makes_what_was_trained(
    tokenizer: PreTrainedTokenizerBase, rule: TokenRule, pairs: list[tuple[str, str]]
) -> None:
    trained = [made(tokenizer, rule, prompt, target) for prompt, target in pairs]
    assert all(each.agrees(tokenizer, rule) for each in trained)
    inferred = infer_rule(tokenizer, trained)
    if inferred is None:
        # Texts that are cut everywhere, or that the texts around them repeat, do not show the rule.
        return
    assert all(each.agrees(tokenizer, inferred) for each in trained if each.tokens.scored)
    assert infer_rule(tokenizer, trained, [rule]) == (rule if any(each.tokens.scored for each in trained) else None)
    assert TokenRule.of(json.loads(json.dumps(inferred.to_dict()))) == inferred


@pytest.mark.parametrize(
    "rule",
    [
        TokenRule(before_prompt="Q: ", after_prompt="\nA:", after_target="\n", ending=(0,)),
        TokenRule("separate", "none", before_target=" ", ending=(0,), scored="all"),
        TokenRule(stripped=True, before_prompt="yes or no: ", after_prompt=" | ", scored="after_common_prefix"),
        TokenRule(ending=(0,), cut="right", max_length=9),
        TokenRule(ending=(0,), cut="right_before_ending", max_length=9, scored="all"),
        TokenRule(ending=(0,), cut="left", max_length=9, scored="all"),
        TokenRule("separate", "none", ending=(0,), cut="left_of_prompt", max_length=9),
    ],
    ids=str,
)
def test_the_rule_is_found_and_holds_for_other_texts(tokenizer: PreTrainedTokenizerBase, rule: TokenRule) -> None:
    texts = [("Say it " * number + f"{number}?", (" yes", " no, it is.")[number % 2]) for number in range(6)]
    inferred = infer_rule(tokenizer, [made(tokenizer, rule, *each) for each in texts])
    assert inferred is not None
    for prompt, target in (("An other one", " at last"), ("A long one" * 20, " no"), ("A", " word." * 4)):
        each = made(tokenizer, rule, prompt, target)
        assert not each.tokens.scored or each.agrees(tokenizer, inferred)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "apart",
        7,
        {"rules": {}},
        {"rules": {"even": {}}},
        {"rules": {"even": TokenRule().to_dict() | {"text": "both"}}},
        {"rules": {"even": TokenRule().to_dict() | {"ending": [-1]}}},
        {"rules": {"even": TokenRule().to_dict() | {"max_length": 0}}},
        {"rules": {"even": TokenRule().to_dict() | {"stripped": 1}}},
        {"rules": {"even": TokenRule().to_dict() | {"cut": ["right"]}}},
        {"rows": 3},
        {"rows": "ab", "rules": {}},
    ],
    ids=str,
)
def test_what_is_no_rule_is_refused(value: Any) -> None:
    with pytest.raises(SettingsError, match="tokenization"):
        named_rule(value)
