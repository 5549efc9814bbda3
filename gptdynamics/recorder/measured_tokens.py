"""The token ids of the test examples: made by a rule, or given."""

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
        rule: `joined` or `separate`, as of `tokenize_example`, or a rule for each task by its name; None: there is
            none.
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
            DataError: none of its tokens is scored, or it is too long.
        """
        if self.given is None or target is not None:
            return self.by_rule(example, target)
        tokens = self.given[example.id]
        where = f"test example {example.id}"
        if not tokens.scored:
            raise DataError(f"{where}: none of its tokens is scored, so it has no loss. Leave it out")
        if len(tokens.ids) > self.context:
            raise DataError(
                f"{where}: it has {len(tokens.ids)} tokens, and {self.context} are measured at most. "
                "Give RecordSettings(max_length=...), or leave it out"
            )
        return tokens

    def by_rule(self, example: Example, target: str | None = None) -> TokenizedExample:
        """Tokenise any example by the rule.

        Raises:
            DataError: none of its tokens is scored, or its target is too long.
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
                f"{where}: no token of its target is left where the trainer cuts sequences, so it has no loss. "
                "Leave the example out, or let the trainer's max_length be larger"
            )
        if target is not None:
            # Labels are compared by their own tokens, whatever else training scores.
            own = [index for index in tokens.scored if index >= tokens.prompt_length]
            tokens = replace(tokens, scored=own or tokens.scored)
        return self._cut_to_context(tokens, where)

    def _cut_to_context(self, tokens: TokenizedExample, where: str) -> TokenizedExample:
        """Cut the left of the prompt, as `tokenize_example` does, if the training's rule left the sequence too long."""
        over = len(tokens.ids) - self.context
        if over <= 0:
            return tokens
        begin = 1 if tokens.ids[0] == self.tokenizer.bos_token_id else 0
        if tokens.prompt_length - over < 1:
            raise DataError(
                f"{where}: without its prompt it has {len(tokens.ids) - tokens.prompt_length} tokens, the context only "
                f"{self.context}. Leave it out, or give RecordSettings(max_length=...)"
            )
        scored = [index - over for index in tokens.scored if index >= begin + over]
        ids = tokens.ids[:begin] + tokens.ids[begin + over :]
        return TokenizedExample(ids, [index for index in scored if index], tokens.prompt_length - over, over)

    def for_limit(self, example: Example) -> TokenizedExample:
        """Tokenise a pool example, whose target says how long a generated text may be."""
        if self.rule is not None:
            return self.by_rule(example)
        return tokenize_example(self.tokenizer, example, self.context, end_of_text=True)

    @property
    def tokenization(self) -> Any:
        """What the manifest says of them; plain values."""
        if self.given is not None:
            text = json.dumps([[number, row.ids, row.labels] for number, row in sorted(self.given.items())])
            return {"rows": hashlib.sha256(text.encode()).hexdigest()[:16]}
        if isinstance(self.rule, Mapping):
            return {"rules": {name: rule.to_dict() for name, rule in sorted(self.rule.items())}}
        return self.rule
