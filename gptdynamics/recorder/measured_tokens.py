"""The token ids of the test examples: made by a rule, or given by the user."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gptdynamics.configs import Tokenization
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.models.token_rule import TokenRule
from gptdynamics.models.tokens import TokenizedExample, tokenize_example
from gptdynamics.recorder.trained_tokens import LabelledRow
from gptdynamics.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Rule = str | Mapping[str, TokenRule] | None


class MeasuredTokens:
    """Makes the token ids of test examples. Called like `ExampleTokenizer`.

    Args:
        tokenizer: of the model.
        tasks: of the examples, by name.
        context: longest sequence in tokens.
        rule: `joined` or `separate`, see `tokenize_example`, or a rule for each task by its name; None: none.
        given: ids and labels of the test examples; None: the rule makes them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tasks: Mapping[str, Task],
        context: int,
        rule: Rule,
        given: Mapping[int, LabelledRow] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.tasks = tasks
        self.context = context
        self.rule = rule
        self.given = given

    def __call__(self, example: Example, target: str | None = None) -> TokenizedExample:
        """Tokenise a test example, or its prompt with another target.

        Raises:
            DataError: none of its tokens has a loss, or it is too long.
        """
        if self.given is None or target is not None:
            return self.by_rule(example, target)
        tokens = self.given[example.id]
        where = f"test example {example.id}"
        if not tokens.scored:
            raise DataError(f"{where}: all of its labels are -100, so it has no loss. Leave it out")
        if len(tokens.ids) > self.context:
            raise DataError(
                f"{where}: it has {len(tokens.ids)} tokens, more than the limit of {self.context}. "
                "Set RecordSettings(max_length=...), or leave it out"
            )
        return tokens

    def by_rule(self, example: Example, target: str | None = None) -> TokenizedExample:
        """Tokenise any example by the rule.

        Raises:
            DataError: none of its tokens has a loss, or its target is too long.
        """
        text = example.target if target is None else target
        if not isinstance(self.rule, Mapping):
            end = self.tasks[example.task].generates
            rule: Tokenization = "separate" if self.rule == "separate" else "joined"
            return tokenize_example(self.tokenizer, example, self.context, end, text, rule)
        where = f"{example.task} example {example.id}"
        tokens = self.rule[example.task].tokens(self.tokenizer, example.prompt, text)
        if not tokens.scored:
            raise DataError(
                f"{where}: the trainer's max_length cuts off its whole target, so it has no loss. "
                "Leave the example out, or increase the trainer's max_length"
            )
        if target is not None:
            # Labels are compared by their own tokens, even if the training has a loss on others.
            target_scored = [index for index in tokens.scored if index >= tokens.prompt_length]
            tokens = replace(tokens, scored=target_scored or tokens.scored)
        return self._cut_to_context(tokens, where)

    def _cut_to_context(self, tokens: TokenizedExample, where: str) -> TokenizedExample:
        """Cut the prompt from the left, as `tokenize_example` does, if the sequence is longer than the context."""
        excess = len(tokens.ids) - self.context
        if excess <= 0:
            return tokens
        begin = 1 if tokens.ids[0] == self.tokenizer.bos_token_id else 0
        if tokens.prompt_length - excess < 1:
            raise DataError(
                f"{where}: its target alone has {len(tokens.ids) - tokens.prompt_length} tokens, which do not fit in "
                f"the context of {self.context}. Leave it out, or set RecordSettings(max_length=...)"
            )
        scored = [index - excess for index in tokens.scored if index >= begin + excess]
        ids = tokens.ids[:begin] + tokens.ids[begin + excess :]
        return TokenizedExample(ids, [index for index in scored if index], tokens.prompt_length - excess, excess)

    def for_limit(self, example: Example) -> TokenizedExample:
        """Tokenise a pool example, whose target limits the length of generated texts."""
        if self.rule is not None:
            return self.by_rule(example)
        return tokenize_example(self.tokenizer, example, self.context, end_of_text=True)

    @property
    def tokenization(self) -> Any:
        """The manifest's entry about these tokens; plain values."""
        if self.given is not None:
            text = json.dumps([[number, row.ids, row.labels] for number, row in sorted(self.given.items())])
            return {"rows": hashlib.sha256(text.encode()).hexdigest()[:16]}
        if isinstance(self.rule, Mapping):
            return {"rules": {name: rule.to_dict() for name, rule in sorted(self.rule.items())}}
        return self.rule
