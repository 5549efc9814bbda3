"""Finds out how a training makes tokens, so that the test examples are measured on such tokens."""

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

# Of rules that fit, this many are compared.
_MOST_RULES = 24

WHAT_TO_PASS = (
    "Give the test rows input_ids and labels of their own (-100 where no loss is taken), made as the training rows "
    "are; or give the trainer an eval_dataset that has the test rows' ids"
)


@dataclass(frozen=True)
class Training:
    """What a Trainer shows of its tokens when training begins.

    Attributes:
        rows: of the training dataset, with the numbers of pool examples.
        evaluation: of the trainer's own evaluation dataset, with the numbers of test examples.
        preparation: what TRL makes of rows.
        chat_template: that conversational rows are trained with, if it is not the tokenizer's own.
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
    """Find out how a training makes tokens, and make those of the test examples in the same way.

    Args:
        tokenizer: of the model.
        tasks: of the examples, by name.
        context: longest sequence in tokens.
        examples: pool and test set.
        rows: pool and test rows as the user gave them.
        training: what a Trainer shows of its tokens; None: the loop is the user's own and shows nothing.
        earlier: what the manifest says of the config's earlier runs; None: there are none.

    Raises:
        DataError: the tokens cannot be found out; the message has the first example that differs, and what to pass.
    """
    given = given_tokens(rows[1], "test")
    before = None if earlier is None else named_rule(earlier)
    if training is None:
        by_rule = MeasuredTokens(tokenizer, tasks, context, "joined" if before is None else before)
        return _with_given(by_rule, given, examples)
    return _Search(tokenizer, tasks, context, examples, rows, training).find(given, before)


def _with_given(
    by_rule: MeasuredTokens, given: Mapping[int, LabelledRow], examples: RecordedExamples
) -> MeasuredTokens:
    """Use tokens that were given, unless the rule makes the same."""
    if not given or (by_rule.rule is not None and _makes(by_rule, examples.test, given)):
        return by_rule
    if labelled := next((each for each in examples.test if not by_rule.tasks[each.task].generates), None):
        raise DataError(
            f"test example {labelled.id}: its tokens are not what its prompt and target make, so those of the other "
            f"labels of {labelled.task} are not known, and accuracy cannot be measured. Give texts that make them, or "
            "no labels"
        )
    return MeasuredTokens(by_rule.tokenizer, by_rule.tasks, by_rule.context, by_rule.rule, dict(given))


def _makes(by_rule: MeasuredTokens, examples: Sequence[Any], tokens: Mapping[int, LabelledRow]) -> bool:
    """Whether the rule makes tokens with the same loss, by the numbers of examples."""
    try:
        return all(by_rule.by_rule(examples[number]).has_same_loss(each) for number, each in tokens.items())
    except DataError:
        return False


class _Search:
    """Compares what a Trainer trains on with what rules make of the texts; arguments as of `find_test_tokens`."""

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
                    f"pool example {number}: two rows of the training dataset with its id have other tokens. "
                    "Give each text an example of its own in the pool"
                )
        self.by_task: dict[str, list[TrainedExample]] = {}
        for number, tokens in self.trained.items():
            example = examples.pool[number]
            trained = TrainedExample(example.prompt, example.target, tokens)
            self.by_task.setdefault(example.task, []).append(trained)

    def find(self, given: Mapping[int, LabelledRow], before: Rule) -> MeasuredTokens:
        """The tokens of the test examples: given ones first, then those of the rule that explains the training."""
        self._check_given_pool()
        rule = self._rule(before)
        by_rule = self._tokens_by(rule)
        ambiguity = None if given or rule is None else self._ambiguity(by_rule)
        uncertain = rule is None or ambiguity is not None
        given = given or self._prepared(uncertain) or (self._evaluated() if uncertain else {})
        if not given and ambiguity is not None:
            logger.warning("%s. %s", ambiguity, WHAT_TO_PASS)
        if not given and rule is None:
            raise DataError(self._unexplained())
        tokens = _with_given(by_rule, given, self.examples)
        if tokens.given is None and (cut := [each.id for each in self.examples.test if tokens(each).cut]):
            logger.warning(
                "%d test examples (the first is %d) have more than %d tokens and lose the left of their prompts: the "
                "training may not cut them so. RecordSettings(max_length=...) says otherwise",
                len(cut),
                cut[0],
                self.context,
            )
        return tokens

    def _tokens_by(self, rule: Rule) -> MeasuredTokens:
        return MeasuredTokens(self.tokenizer, self.tasks, self.context, rule)

    def _check_given_pool(self) -> None:
        given = given_tokens(self.rows[0], "pool")
        for number, tokens in self.trained.items():
            if number in given and not given[number].has_same_loss(tokens):
                raise DataError(
                    f"pool example {number}: its own input_ids and labels are not those that it is trained on. Give "
                    "the trainer and the recorder the same rows"
                )

    def _rule(self, before: Rule) -> Rule:
        """The rule that makes exactly what was trained on, for each task; the one of earlier runs is tried first."""
        if not any(tokens.scored for tokens in self.trained.values()):
            return None
        earlier = before if isinstance(before, Mapping) else {}
        if earlier and (inferred := self._inferred(earlier)) == earlier:
            return inferred
        for name in [*([before] if isinstance(before, str) else []), *TOKENIZATIONS]:
            by_rule = self._tokens_by(name)
            if _makes(by_rule, self.examples.pool, self.trained) and self._fits_limit(by_rule):
                return name
        return self._inferred(earlier)

    def _fits_limit(self, by_rule: MeasuredTokens) -> bool:
        """Whether the trainer would cut no test example."""
        limit = None if self.cut is None else self.cut[1]
        try:
            return limit is None or all(len(by_rule.by_rule(each)) <= limit for each in self.examples.test)
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
                if all(each.agrees(self.tokenizer, with_cut) for each in trained if each.tokens.scored):
                    rule = with_cut
            rules[task] = rule
        return rules if {example.task for example in self.examples.test} <= rules.keys() else None

    def _ambiguity(self, chosen: MeasuredTokens) -> str | None:
        """What to say if another rule also explains the training, but makes other tokens of a test example."""
        for task, trained in self.by_task.items():
            test = [example for example in self.examples.test if example.task == task][:MOST_ROWS]
            for rule in islice(fitting_rules(self.tokenizer, trained, (), self._limits), _MOST_RULES):
                if self.cut is not None and rule.cut == "none":
                    rule = replace(rule, cut=self.cut[0], max_length=self.cut[1])
                for example in test:
                    ours = chosen.by_rule(example)
                    theirs = rule.tokens(self.tokenizer, example.prompt, example.target)
                    # `find` warns of examples that are cut to the context.
                    if not ours.cut and not ours.has_same_loss(theirs):
                        difference = first_difference(self.tokenizer, ours, theirs, ("measured on", "another makes"))
                        return (
                            f"test example {example.id}: more than one way to make tokens makes those of the "
                            f"{len(trained)} training rows that were read, and they differ here. It is {difference}"
                        )
        return None

    def _prepared(self, needed: bool) -> dict[int, LabelledRow]:
        """TRL's tokens of the test rows, if it makes of pool rows what is trained on; else empty."""
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
                f"test example {missing[0]}: the trainer drops it, for no token of its target is left where it cuts "
                "sequences, so it has no loss. Leave it out, or let max_length be larger"
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
                ours = joined.by_rule(self.examples.pool[number])
            except DataError as error:
                return f"{error}. {WHAT_TO_PASS}"
            if not ours.has_same_loss(tokens):
                return (
                    "the tokens that are trained on cannot be made of prompt and target. "
                    f"Pool example {number} is {first_difference(self.tokenizer, tokens, ours)}. {WHAT_TO_PASS}"
                )
        return (
            "which tokens are trained on is not known: no row that could be read has an id of the pool and tokens that "
            f"are scored. {WHAT_TO_PASS}"
        )
