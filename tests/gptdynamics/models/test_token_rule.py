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
    trained = []
    for prompt, target in pairs:
        tokens = rule.tokens(tokenizer, prompt, target)
        end = tokens.scored[-1] + 1 if tokens.scored else 0
        trained.append(TrainedExample(prompt, target, tuple(tokens.ids[:end]), tuple(tokens.scored), len(tokens.ids)))
    assert all(each.agrees(rule.tokens(tokenizer, each.prompt, each.target)) for each in trained)
    found = infer_rule(tokenizer, trained)
    if found is None:
        # Texts that are cut everywhere, or that what is around them repeats, do not show the rule.
        return
    for each in trained:
        assert not each.scored or each.agrees(found.tokens(tokenizer, each.prompt, each.target))
    assert infer_rule(tokenizer, trained, [rule]) == (rule if any(each.scored for each in trained) else None)
    assert TokenRule.of(json.loads(json.dumps(found.to_dict()))) == found


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
    def made(prompt: str, target: str) -> TrainedExample:
        tokens = rule.tokens(tokenizer, prompt, target)
        end = tokens.scored[-1] + 1 if tokens.scored else 0
        return TrainedExample(prompt, target, tuple(tokens.ids[:end]), tuple(tokens.scored), len(tokens.ids))

    found = infer_rule(tokenizer, [made("Say it " * at + f"{at}?", (" yes", " no, it is.")[at % 2]) for at in range(6)])
    assert found is not None
    for prompt, target in (("An other one", " at last"), ("A long one" * 20, " no"), ("A", " word." * 4)):
        each = made(prompt, target)
        assert not each.scored or each.agrees(found.tokens(tokenizer, prompt, target))


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
