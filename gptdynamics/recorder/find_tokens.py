"""Infers how a training makes tokens, to measure the test examples on tokens made in the same way."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from gptdynamics.configs import TOKENIZATIONS
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.models.token_rule import (
    TokenRule,
    TrainedExample,
    first_difference,
    fitting_rules,
    infer_rule,
    named_rule,
)
from gptdynamics.recorder.examples import RecordedExamples
from gptdynamics.recorder.measured_tokens import MeasuredTokens, Rule
from gptdynamics.recorder.row_texts import has_messages
from gptdynamics.recorder.trained_tokens import MOST_ROWS, LabelledRow, RowSource, SFTPreparation, given_tokens
from gptdynamics.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# The most fitting rules that are compared.
_MOST_RULES = 24

WHAT_TO_PASS = (
    "Give the test rows their own input_ids and labels (-100 where there is no loss), made like those of the training "
    "rows; or give the trainer an eval_dataset that has the test rows' ids"
)


@dataclass(frozen=True)
class Training:
    """A Trainer's tokens when training begins.

    Attributes:
        rows: of the training dataset, with the numbers of pool examples.
        evaluation: rows of the trainer's evaluation dataset, with the numbers of test examples.
        preparation: TRL's preparation of rows.
        chat_template: of the training, if it is not the tokenizer's own.
    """

    rows: RowSource
    evaluation: RowSource
    preparation: SFTPreparation
    chat_template: str | None = None


def find_test_tokens(
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Task],
    context: int,
    examples: RecordedExamples,
    rows: tuple[Sequence[Any], Sequence[Any]],
    training: Training | None,
    earlier: Any = None,
) -> MeasuredTokens:
    """Infer how a training makes tokens, and tokenise the test examples in the same way.

    Args:
        tokenizer: of the model.
        tasks: of the examples, by name.
        context: longest sequence in tokens.
        examples: pool and test set.
        rows: pool and test rows as the user gave them.
        training: a Trainer's tokens; None: the training loop is the user's own, so its tokens are unknown.
        earlier: the manifest's entry about the tokens of the config's earlier runs; None: there are none.

    Raises:
        DataError: the tokens cannot be inferred; the message has the first example that differs, and what to pass.
    """
    test_tokens = given_tokens(rows[1], "test")
    earlier_rule = None if earlier is None else named_rule(earlier)
    if training is None:
        by_rule = MeasuredTokens(tokenizer, tasks, context, "joined" if earlier_rule is None else earlier_rule)
        return _with_given(by_rule, test_tokens, examples)
    return _Search(tokenizer, tasks, context, examples, rows, training).find(test_tokens, earlier_rule)


def _with_given(
    by_rule: MeasuredTokens, given_tokens: Mapping[int, LabelledRow], examples: RecordedExamples
) -> MeasuredTokens:
    """Use the given tokens, unless the rule makes the same ones."""
    if not given_tokens or (by_rule.rule is not None and _makes(by_rule, examples.test, given_tokens)):
        return by_rule
    if labelled := next((example for example in examples.test if not by_rule.tasks[example.task].generates), None):
        raise DataError(
            f"test example {labelled.id}: its tokens are not those of its prompt and target, so the tokens of the "
            f"other labels of {labelled.task} are unknown, and accuracy cannot be measured. Give texts that result in "
            "these tokens, or no labels"
        )
    return MeasuredTokens(by_rule.tokenizer, by_rule.tasks, by_rule.context, by_rule.rule, dict(given_tokens))


def _makes(by_rule: MeasuredTokens, examples: Sequence[Any], tokens: Mapping[int, LabelledRow]) -> bool:
    """Whether the rule makes tokens with the same loss as `tokens`, which are by the numbers of examples."""
    try:
        return all(by_rule.by_rule(examples[number]).has_same_loss(row) for number, row in tokens.items())
    except DataError:
        return False


class _Search:
    """Compares a Trainer's tokens with those that rules make of the texts; arguments as in `find_test_tokens`."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tasks: Mapping[str, Task],
        context: int,
        examples: RecordedExamples,
        rows: tuple[Sequence[Any], Sequence[Any]],
        training: Training,
    ) -> None:
        self.tokenizer, self.tasks, self.context = tokenizer, tasks, context
        self.examples, self.rows, self.training = examples, rows, training
        self.cut = training.preparation.cut
        self.trained: dict[int, LabelledRow] = {}
        for number, tokens in training.rows():
            if not self.trained.setdefault(number, tokens).has_same_loss(tokens):
                raise DataError(
                    f"pool example {number}: two rows of the training dataset with its id have different tokens. "
                    "Give each text its own example in the pool"
                )
        self.by_task: dict[str, list[TrainedExample]] = {}
        for number, tokens in self.trained.items():
            example = examples.pool[number]
            trained = TrainedExample(example.prompt, example.target, tokens)
            self.by_task.setdefault(example.task, []).append(trained)

    def find(self, test_tokens: Mapping[int, LabelledRow], earlier_rule: Rule) -> MeasuredTokens:
        """The tokens of the test examples: given ones first, then those of the rule that explains the training."""
        self._check_given_pool()
        rule = self._rule(earlier_rule)
        by_rule = self._tokens_by(rule)
        ambiguity = None if test_tokens or rule is None else self._ambiguity(by_rule)
        uncertain = rule is None or ambiguity is not None
        test_tokens = test_tokens or self._prepared(uncertain) or (self._evaluated() if uncertain else {})
        if not test_tokens and ambiguity is not None:
            logger.warning("%s. %s", ambiguity, WHAT_TO_PASS)
        if not test_tokens and rule is None:
            raise DataError(self._unexplained())
        tokens = _with_given(by_rule, test_tokens, self.examples)
        if tokens.given is None and (cut := [example.id for example in self.examples.test if tokens(example).cut]):
            logger.warning(
                "%d test examples (the first is %d) have more than %d tokens, and their prompts are cut from the left; "
                "the training may cut differently. Set RecordSettings(max_length=...) to change this",
                len(cut),
                cut[0],
                self.context,
            )
        return tokens

    def _tokens_by(self, rule: Rule) -> MeasuredTokens:
        return MeasuredTokens(self.tokenizer, self.tasks, self.context, rule)

    def _check_given_pool(self) -> None:
        pool_row_tokens = given_tokens(self.rows[0], "pool")
        for number, tokens in self.trained.items():
            if number in pool_row_tokens and not pool_row_tokens[number].has_same_loss(tokens):
                raise DataError(
                    f"pool example {number}: its input_ids and labels are not those of the training row. Give the "
                    "trainer and the recorder the same rows"
                )

    def _rule(self, earlier_rule: Rule) -> Rule:
        """The rule that makes exactly the trained tokens, for each task; the rule of earlier runs is tried first."""
        if not any(tokens.scored for tokens in self.trained.values()):
            return None
        earlier_rules = earlier_rule if isinstance(earlier_rule, Mapping) else {}
        if earlier_rules and (inferred := self._inferred(earlier_rules)) == earlier_rules:
            return inferred
        for name in [*([earlier_rule] if isinstance(earlier_rule, str) else []), *TOKENIZATIONS]:
            by_rule = self._tokens_by(name)
            if _makes(by_rule, self.examples.pool, self.trained) and self._fits_limit(by_rule):
                return name
        return self._inferred(earlier_rules)

    def _fits_limit(self, by_rule: MeasuredTokens) -> bool:
        """Whether the trainer would cut no test example."""
        limit = None if self.cut is None else self.cut[1]
        try:
            return limit is None or all(len(by_rule.by_rule(example)) <= limit for example in self.examples.test)
        except DataError:
            return False

    @property
    def _limits(self) -> list[int]:
        return [] if self.cut is None else [self.cut[1]]

    def _inferred(self, earlier: Mapping[str, TokenRule]) -> dict[str, TokenRule] | None:
        rules: dict[str, TokenRule] = {}
        for task, trained in self.by_task.items():
            rule = infer_rule(self.tokenizer, trained, [earlier[task]] if task in earlier else [], self._limits)
            if rule is None:
                return None
            if self.cut is not None:
                with_cut = replace(rule, cut=self.cut[0], max_length=self.cut[1])
                if all(example.agrees(self.tokenizer, with_cut) for example in trained if example.tokens.scored):
                    rule = with_cut
            rules[task] = rule
        return rules if {example.task for example in self.examples.test} <= rules.keys() else None

    def _ambiguity(self, chosen: MeasuredTokens) -> str | None:
        """A message if another rule also makes the trained tokens, but other tokens of a test example; else None."""
        for task, trained in self.by_task.items():
            test = [example for example in self.examples.test if example.task == task][:MOST_ROWS]
            for rule in islice(fitting_rules(self.tokenizer, trained, (), self._limits), _MOST_RULES):
                if self.cut is not None and rule.cut == "none":
                    rule = replace(rule, cut=self.cut[0], max_length=self.cut[1])
                for example in test:
                    measured = chosen.by_rule(example)
                    alternative = rule.tokens(self.tokenizer, example.prompt, example.target)
                    # `find` warns about examples that are cut to the context.
                    if not measured.cut and not measured.has_same_loss(alternative):
                        difference = first_difference(
                            self.tokenizer, measured, alternative, ("measured on", "another makes")
                        )
                        return (
                            f"test example {example.id}: several ways of tokenising give the tokens of the "
                            f"{len(trained)} training rows that were read, but they differ here. It is {difference}"
                        )
        return None

    def _prepared(self, needed: bool) -> dict[int, LabelledRow]:
        """TRL's tokens of the test rows, if its tokens of the pool rows are the trained ones; else empty."""
        preparation, (pool, test) = self.training.preparation, self.rows
        if not preparation.available or not all(isinstance(row, Mapping) for row in (*pool, *test)):
            return {}
        if not needed and not any(has_messages(row) for row in test):
            return {}
        numbers = sorted(self.trained)[:MOST_ROWS]
        try:
            prepared_pool = preparation.prepare([pool[number] for number in numbers])
            prepared = preparation.prepare(test)
        except SettingsError as error:
            logger.debug("%s", error)
            return {}
        for index, number in enumerate(numbers):
            if index not in prepared_pool or not prepared_pool[index].has_same_loss(self.trained[number]):
                return {}
        missing = [number for number in range(len(test)) if number not in prepared]
        if missing:
            raise DataError(
                f"test example {missing[0]}: the trainer drops it, because max_length cuts off its whole target, so it "
                "has no loss. Leave it out, or increase max_length"
            )
        return prepared

    def _evaluated(self) -> dict[int, LabelledRow]:
        """The test examples' tokens in the trainer's evaluation dataset; empty unless it has them all."""
        rows = dict(self.training.evaluation())
        return rows if len(rows) == len(self.examples.test) else {}

    def _unexplained(self) -> str:
        """Why no rule explains the training, for a message."""
        joined = self._tokens_by("joined")
        for number, tokens in sorted(self.trained.items()):
            if not tokens.scored:
                continue
            try:
                expected = joined.by_rule(self.examples.pool[number])
            except DataError as error:
                return f"{error}. {WHAT_TO_PASS}"
            if not expected.has_same_loss(tokens):
                return (
                    "no known way of tokenising prompt and target gives the trained tokens. "
                    f"Pool example {number} is {first_difference(self.tokenizer, tokens, expected)}. {WHAT_TO_PASS}"
                )
        return (
            "the trained tokens are unknown: no readable row has an id of the pool and tokens with a loss. "
            f"{WHAT_TO_PASS}"
        )
