"""Which token ids of the test examples are measured: those that the training itself would make of them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from gptdynamics.configs import TOKENIZATIONS
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.models.token_rule import (
    Cut,
    TokenRule,
    Tokens,
    TrainedExample,
    check_scored,
    first_difference,
    fitting_rules,
    infer_rule,
    named_rule,
)
from gptdynamics.models.tokens import TokenizedExample, tokenize_example
from gptdynamics.recorder.examples import RecordedExamples
from gptdynamics.recorder.row_texts import has_messages
from gptdynamics.recorder.trained_tokens import (
    MOST,
    Labelled,
    SFTPreparation,
    Trained,
    given_tokens,
)
from gptdynamics.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Of rules that fit, so many are compared.
_MOST_RULES = 24

WHAT_TO_PASS = (
    "Give the test rows input_ids and labels of their own (-100 where no loss is taken), made as the training rows "
    "are; or give the trainer an eval_dataset that has the test rows' ids"
)


@dataclass(frozen=True)
class Training:
    """What is known of a Trainer's tokens when training begins.

    Attributes:
        rows: of the training dataset.
        evaluation: gives the rows of the trainer's own evaluation dataset, with the numbers of test examples.
        preparation: what TRL makes of rows.
        chat_template: that conversational rows are trained with, if it is not the tokenizer's own.
    """

    rows: Trained
    evaluation: Callable[[], Iterable[tuple[int, Labelled]]]
    preparation: SFTPreparation
    chat_template: str | None = None


class TestTokens:
    """Makes the token ids of test examples. Called like `ExampleTokenizer`.

    Args:
        tokenizer: of the model.
        tasks: of the examples, by name.
        context: longest sequence in tokens.
        rule: `joined` or `separate`, as of `tokenize_example`, or a rule for each task by its name; None: there is
            none.
        given: ids and labels of the test examples, where they are known; None: the rule makes them.
    """

    __test__ = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tasks: Mapping[str, Task],
        context: int,
        rule: str | Mapping[str, TokenRule] | None,
        given: Mapping[int, Labelled] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.tasks = tasks
        self.context = context
        self.rule = rule
        self.given = given

    def __call__(self, example: Example, target: str | None = None) -> TokenizedExample:
        """Tokenise a test example, or its prompt with another target.

        Raises:
            DataError: it has no tokens that are scored, or is too long.
        """
        if self.given is not None and target is None:
            return self._given(example, self.given[example.id])
        return self.by_rule(example, target)

    def by_rule(self, example: Example, target: str | None = None) -> TokenizedExample:
        """Tokenise any example by the rule."""
        text = example.target if target is None else target
        if not isinstance(self.rule, Mapping):
            end = self.tasks[example.task].generates
            return tokenize_example(
                self.tokenizer, example, self.context, end, text, "separate" if self.rule == "separate" else "joined"
            )
        where = f"{example.task} example {example.id}"
        rule = self.rule[example.task]
        tokens = check_scored(rule.tokens(self.tokenizer, example.prompt, text), where)
        if target is not None:
            # Labels are compared by their own tokens, whatever else training scores.
            own = [place for place in tokens.scored if place >= tokens.prompt_length] or tokens.scored
            tokens = tokens._replace(scored=own)
        return self._shortened(tokens, where)

    def _shortened(self, tokens: Tokens, where: str) -> TokenizedExample:
        """What no rule of the training cuts is cut as `tokenize_example` does: the left of the prompt goes."""
        over = len(tokens.ids) - self.context
        if over <= 0:
            return TokenizedExample(tokens.ids, tokens.scored, tokens.prompt_length)
        begin = 1 if tokens.ids[0] == self.tokenizer.bos_token_id else 0
        if tokens.prompt_length - over < 1:
            raise DataError(
                f"{where}: without its prompt it has {len(tokens.ids) - tokens.prompt_length} tokens, the context only "
                f"{self.context}. Leave it out, or give RecordSettings(max_length=...)"
            )
        scored = [place - over for place in tokens.scored if place >= begin + over]
        ids = tokens.ids[:begin] + tokens.ids[begin + over :]
        return TokenizedExample(ids, [place for place in scored if place], tokens.prompt_length - over, over)

    def _given(self, example: Example, tokens: Labelled) -> TokenizedExample:
        where = f"test example {example.id}"
        scored = tokens.scored
        if not scored:
            raise DataError(f"{where}: none of its tokens is scored, so it has no loss. Leave it out")
        if len(tokens.ids) > self.context:
            raise DataError(
                f"{where}: it has {len(tokens.ids)} tokens, and {self.context} are measured at most. "
                "Give RecordSettings(max_length=...), or leave it out"
            )
        # What would be generated is the last stretch that is scored.
        start = next((place for place in reversed(range(1, scored[-1])) if place not in set(scored)), 0) + 1
        return TokenizedExample(tokens.ids, scored, start)

    def for_limit(self, example: Example) -> TokenizedExample:
        """Tokenise a pool example, whose target says how long a generated text may be."""
        if self.rule is not None:
            return self.by_rule(example)
        return tokenize_example(self.tokenizer, example, self.context, end_of_text=True)

    @property
    def tokenization(self) -> Any:
        """What the manifest says of them; plain values."""
        if self.given is not None:
            text = json.dumps([[key, *map(list, value)] for key, value in sorted(self.given.items())])
            return {"rows": hashlib.sha256(text.encode()).hexdigest()[:16]}
        if isinstance(self.rule, Mapping):
            return {"rules": {name: rule.to_dict() for name, rule in sorted(self.rule.items())}}
        return self.rule


def find_test_tokens(
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Task],
    context: int,
    examples: RecordedExamples,
    rows: tuple[Sequence[Any], Sequence[Any]],
    training: Training | None,
    earlier: Any = None,
) -> TestTokens:
    """Find out how a training makes tokens, and make those of the test examples in the same way.

    Args:
        tokenizer: of the model.
        tasks: of the examples, by name.
        context: longest sequence in tokens.
        examples: pool and test set.
        rows: pool and test rows as the user gave them.
        training: what is known of a Trainer's tokens; None: nothing is, for the loop is the user's own.
        earlier: what the manifest says of the config's earlier runs; None: there are none.

    Raises:
        DataError: the tokens cannot be found out; the message has the first example that differs, and what to pass.
    """
    own = given_tokens(rows[1], "test")
    before = None if earlier is None else named_rule(earlier)
    if training is None:
        known = before if before is not None else "joined"
        return _of_given(TestTokens(tokenizer, tasks, context, known), own, examples)
    trained = _trained(training.rows)
    _check_given_pool(rows[0], trained)
    rule = _rule(tokenizer, tasks, context, examples, trained, training.preparation.cut, before)
    by_rule = TestTokens(tokenizer, tasks, context, rule)
    doubt = None if own or rule is None else _doubt(by_rule, examples, trained, training.preparation.cut)
    unsure = rule is None or doubt is not None
    if not own:
        own = _prepared(training.preparation, rows, trained, needed=unsure)
    if not own and unsure:
        own = _evaluated(training.evaluation, examples)
    if not own and doubt is not None:
        logger.warning("%s. %s", doubt, WHAT_TO_PASS)
    if not own and rule is None:
        raise DataError(_difference(TestTokens(tokenizer, tasks, context, "joined"), examples, trained))
    found = _of_given(by_rule, own, examples)
    if found.given is None and (cut := [each.id for each in examples.test if found(each).cut]):
        logger.warning(
            "%d test examples (the first is %d) have more than %d tokens and lose the left of their prompts: the "
            "training may not cut them so. RecordSettings(max_length=...) says otherwise",
            len(cut),
            cut[0],
            context,
        )
    return found


def _trained(rows: Trained) -> dict[int, Labelled]:
    """What training makes of pool examples, by their numbers."""
    found: dict[int, Labelled] = {}
    for number, tokens in rows.read():
        same = found.setdefault(number, tokens)
        if (same.until_last_scored, same.scored) != (tokens.until_last_scored, tokens.scored):
            raise DataError(
                f"pool example {number}: two rows of the training dataset with its id have other tokens. "
                "Give each text an example of its own in the pool"
            )
    return found


def _check_given_pool(rows: Sequence[Any], trained: Mapping[int, Labelled]) -> None:
    given = given_tokens(rows, "pool")
    for number, tokens in trained.items():
        mine = given.get(number)
        if mine is not None and (mine.until_last_scored, mine.scored) != (tokens.until_last_scored, tokens.scored):
            raise DataError(
                f"pool example {number}: its own input_ids and labels are not those that it is trained on. Give the "
                "trainer and the recorder the same rows"
            )


def _rule(
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Task],
    context: int,
    examples: RecordedExamples,
    trained: Mapping[int, Labelled],
    cut: tuple[Cut, int] | None,
    before: str | dict[str, TokenRule] | None,
) -> str | dict[str, TokenRule] | None:
    """The rule that makes exactly what was trained on, for each task; one of earlier runs before others."""
    if not any(tokens.scored for tokens in trained.values()):
        return None
    named = [*([before] if isinstance(before, str) else []), *TOKENIZATIONS]
    if isinstance(before, dict):
        found = _inferred(tokenizer, examples, trained, cut, before)
        if found == before:
            return found
    for name in named:
        maker = TestTokens(tokenizer, tasks, context, name)
        if _makes(maker, examples, trained) and (cut is None or _all_shorter(maker, examples, cut[1])):
            return name
    return _inferred(tokenizer, examples, trained, cut, before if isinstance(before, dict) else {})


def _makes(maker: TestTokens, examples: RecordedExamples, trained: Mapping[int, Labelled]) -> bool:
    for number, tokens in trained.items():
        try:
            mine = maker.by_rule(examples.pool[number])
        except DataError:
            return False
        if mine.scored != tokens.scored or mine.ids[: mine.scored[-1] + 1] != tokens.until_last_scored:
            return False
    return True


def _all_shorter(maker: TestTokens, examples: RecordedExamples, limit: int) -> bool:
    try:
        return all(len(maker.by_rule(each)) <= limit for each in examples.test)
    except DataError:
        return False


def _inferred(
    tokenizer: PreTrainedTokenizerBase,
    examples: RecordedExamples,
    trained: Mapping[int, Labelled],
    cut: tuple[Cut, int] | None,
    before: Mapping[str, TokenRule],
) -> dict[str, TokenRule] | None:
    parts = _by_task(examples, trained)
    rules: dict[str, TokenRule] = {}
    for task, each in parts.items():
        preferred = [before[task]] if task in before else []
        rule = infer_rule(tokenizer, each, preferred, [] if cut is None else [cut[1]])
        if rule is None:
            return None
        if cut is not None:
            known = replace(rule, cut=cut[0], max_length=cut[1])
            if all(one.agrees(known.tokens(tokenizer, one.prompt, one.target)) for one in each if one.scored):
                rule = known
        rules[task] = rule
    return rules if {example.task for example in examples.test} <= rules.keys() else None


def _by_task(examples: RecordedExamples, trained: Mapping[int, Labelled]) -> dict[str, list[TrainedExample]]:
    parts: dict[str, list[TrainedExample]] = {}
    for number, tokens in trained.items():
        example = examples.pool[number]
        made = TrainedExample(
            example.prompt, example.target, tuple(tokens.until_last_scored), tuple(tokens.scored), len(tokens.ids)
        )
        parts.setdefault(example.task, []).append(made)
    return parts


def _doubt(
    chosen: TestTokens, examples: RecordedExamples, trained: Mapping[int, Labelled], cut: tuple[Cut, int] | None
) -> str | None:
    """What to say where another rule makes the trained tokens, too, but other ones of a test example; else None."""
    tokenizer = chosen.tokenizer
    for task, each in _by_task(examples, trained).items():
        test = [example for example in examples.test if example.task == task][:MOST]
        for rule in islice(fitting_rules(tokenizer, each, (), [] if cut is None else [cut[1]]), _MOST_RULES):
            other = rule if cut is None or rule.cut != "none" else replace(rule, cut=cut[0], max_length=cut[1])
            for example in test:
                mine = chosen.by_rule(example)
                theirs = other.tokens(tokenizer, example.prompt, example.target)
                end = mine.scored[-1] + 1
                made = TrainedExample(
                    example.prompt, example.target, tuple(mine.ids[:end]), tuple(mine.scored), len(mine)
                )
                # What is cut to the context is said elsewhere.
                if not mine.cut and not made.agrees(theirs):
                    said = first_difference(tokenizer, made, theirs, ("measured on", "another makes"))
                    return (
                        f"test example {example.id}: more than one way to make tokens makes those of the {len(each)} "
                        f"training rows that were read, and they differ here. It is {said}"
                    )
    return None


def _prepared(
    preparation: SFTPreparation,
    rows: tuple[Sequence[Any], Sequence[Any]],
    trained: Mapping[int, Labelled],
    needed: bool,
) -> dict[int, Labelled]:
    """TRL's tokens of the test rows, if it makes of pool rows what was trained; empty if they are not wanted."""
    if not preparation.available or not all(isinstance(row, Mapping) for part in rows for row in part):
        return {}
    if not needed and not any(has_messages(row) for row in rows[1]):
        return {}
    numbers = sorted(trained)[:MOST]
    try:
        pool = preparation.prepare([rows[0][number] for number in numbers])
        test = preparation.prepare(rows[1])
    except SettingsError as error:
        logger.debug("%s", error)
        return {}
    for place, number in enumerate(numbers):
        mine, theirs = pool.get(place), trained[number]
        if mine is None or (mine.until_last_scored, mine.scored) != (theirs.until_last_scored, theirs.scored):
            return {}
    missing = [number for number in range(len(rows[1])) if number not in test]
    if missing:
        raise DataError(
            f"test example {missing[0]}: the trainer drops it, for no token of its target is left where it cuts "
            "sequences, so it has no loss. Leave it out, or let max_length be larger"
        )
    return test


def _evaluated(
    evaluation: Callable[[], Iterable[tuple[int, Labelled]]], examples: RecordedExamples
) -> dict[int, Labelled]:
    """The tokens of the test examples in the trainer's evaluation dataset; empty unless all are there."""
    found = dict(evaluation())
    return found if len(found) == len(examples.test) else {}


def _of_given(by_rule: TestTokens, given: Mapping[int, Labelled], examples: RecordedExamples) -> TestTokens:
    """Test tokens that were given; by the rule, where that makes the same."""
    if not given:
        return by_rule
    same = by_rule.rule is not None
    for example in examples.test if same else ():
        try:
            mine = by_rule.by_rule(example)
        except DataError:
            same = False
            break
        tokens = given[example.id]
        if mine.scored != tokens.scored or mine.ids[: mine.scored[-1] + 1] != tokens.until_last_scored:
            same = False
            break
    if same:
        return by_rule
    if labelled := next((each for each in examples.test if not by_rule.tasks[each.task].generates), None):
        raise DataError(
            f"test example {labelled.id}: its tokens are not what its prompt and target make, so those of the other "
            f"labels of {labelled.task} are not known, and accuracy cannot be measured. Give texts that make them, or "
            "no labels"
        )
    return TestTokens(by_rule.tokenizer, by_rule.tasks, by_rule.context, by_rule.rule, dict(given))


def _difference(maker: TestTokens, examples: RecordedExamples, trained: Mapping[int, Labelled]) -> str:
    for number, tokens in sorted(trained.items()):
        example = examples.pool[number]
        if not tokens.scored:
            continue
        made = TrainedExample(
            example.prompt, example.target, tuple(tokens.until_last_scored), tuple(tokens.scored), len(tokens.ids)
        )
        try:
            mine = maker.by_rule(example)
        except DataError as error:
            return f"{error}. {WHAT_TO_PASS}"
        measured = Tokens(mine.ids, mine.scored, mine.prompt_length)
        if not made.agrees(measured):
            said = first_difference(maker.tokenizer, made, measured)
            return (
                f"the tokens that are trained on cannot be made of prompt and target. Pool example {number} is {said}. "
                + WHAT_TO_PASS
            )
    return (
        "which tokens are trained on is not known: no row that could be read has an id of the pool and tokens that are "
        f"scored. {WHAT_TO_PASS}"
    )
