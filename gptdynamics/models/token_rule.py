"""The rule by which a trainer makes token ids and labels from a prompt and a target, and its inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gptdynamics.configs import TOKENIZATIONS
from gptdynamics.errors import SettingsError
from gptdynamics.models.tokens import TokenizedExample, common_prefix, join_and_tokenize, tokenize_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Special = Literal["none", "start", "both"]
Scored = Literal["target", "after_common_prefix", "after_prompt_count", "all"]
Cut = Literal["none", "right", "right_before_ending", "left", "left_of_prompt"]

_CUTS: tuple[Cut, ...] = ("right", "left", "left_of_prompt", "right_before_ending")
_SCORED: tuple[Scored, ...] = ("target", "after_common_prefix", "after_prompt_count", "all")
_TEXTS = ("before_prompt", "after_prompt", "before_target", "after_target")
_CHOICES: dict[str, tuple[str, ...]] = {
    "text": ("joined", "separate"),
    "special_tokens": ("none", "start", "both"),
    "scored": _SCORED,
    "cut": ("none", *_CUTS),
}


@dataclass(frozen=True)
class TokenRule:
    """How token ids and labels are made from a prompt and a target.

    Attributes:
        text: `joined`: prompt and target are one text, tokenised once; `separate`: each is tokenised alone.
        special_tokens: whether the tokenizer adds its own special tokens: `none`; `start`: to the joined text, or to
            the prompt; `both`: to the prompt and to the target.
        stripped: whether white space at the ends of prompt and target is removed first.
        before_prompt, after_prompt, before_target, after_target: constant texts around prompt and target.
        ending: constant ids after the text, such as the end of text.
        scored: the tokens with a loss: `target`: tokens with a character of the target, and the ending;
            `after_common_prefix`: tokens after the common prefix of the ids of the prompt alone and of the whole text,
            as in TRL; `after_prompt_count`: tokens after as many ids as the prompt alone has; `all`: every token.
        cut: the part that is cut from a sequence longer than `max_length`: `none`; its `right` end; its right end
            except for the ending (`right_before_ending`); its `left` end; or the `left_of_prompt`, as in
            `tokenize_example`.
        max_length: longest sequence in tokens; None if nothing is cut.
    """

    text: Literal["joined", "separate"] = "joined"
    special_tokens: Special = "start"
    stripped: bool = False
    before_prompt: str = ""
    after_prompt: str = ""
    before_target: str = ""
    after_target: str = ""
    ending: tuple[int, ...] = ()
    scored: Scored = "target"
    cut: Cut = "none"
    max_length: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return asdict(self) | {"ending": list(self.ending)}

    @classmethod
    def of(cls, values: Any) -> TokenRule:
        """The inverse of `to_dict`.

        Raises:
            SettingsError: a value is missing, unknown or of the wrong type.
        """
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            raise SettingsError(f"tokenization {values!r} is not a rule of this version")
        for name, allowed in _CHOICES.items():
            if values[name] not in allowed:
                raise SettingsError(f"tokenization: {name}={values[name]!r} must be one of {', '.join(allowed)}")
        ending, longest = values["ending"], values["max_length"]
        valid = isinstance(ending, list) and all(type(token) is int and token >= 0 for token in ending)
        valid = valid and all(isinstance(values[name], str) for name in _TEXTS) and type(values["stripped"]) is bool
        if not valid or (longest is not None and (type(longest) is not int or longest < 1)):
            raise SettingsError("tokenization: a value is of the wrong type")
        return cls(**(values | {"ending": tuple(ending)}))

    def tokens(self, tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> TokenizedExample:
        """Token ids of a prompt, which may be empty, and its target."""
        if self.stripped:
            prompt, target = prompt.strip(), target.strip()
        before = self.before_prompt + prompt + self.after_prompt
        after = self.before_target + target + self.after_target
        special = self.special_tokens != "none"
        if self.text == "joined":
            ids, begin, boundary, _ = join_and_tokenize(tokenizer, before, after, special)
        else:
            first = tokenize_text(tokenizer, before, special) if before else []
            begin, boundary = 0, len(first)
            ids = first + tokenize_text(tokenizer, after, self.special_tokens == "both")
        ids = [*ids, *self.ending]
        start = boundary
        if self.scored == "all":
            start = 0
        elif self.scored != "target":
            alone = tokenize_text(tokenizer, before, special)
            start = len(alone) if self.scored == "after_prompt_count" else common_prefix(alone, ids)
        return self._cut(ids, list(range(start, len(ids))), boundary, begin)

    def _cut(self, ids: list[int], scored: list[int], boundary: int, begin: int) -> TokenizedExample:
        excess = 0 if self.max_length is None else len(ids) - self.max_length
        if excess > 0 and self.cut != "none" and self.max_length is not None:
            end = len(ids) - (len(self.ending) if self.cut == "right_before_ending" else 0)
            lost = {
                "right": range(self.max_length, len(ids)),
                "right_before_ending": range(max(0, end - excess), end),
                "left": range(excess),
                "left_of_prompt": range(begin, min(begin + excess, boundary)),
            }[self.cut]
            ids = [token for index, token in enumerate(ids) if index not in lost]
            scored = [
                index - sum(1 for lost_index in lost if lost_index < index) for index in scored if index not in lost
            ]
            boundary -= len([index for index in lost if index < boundary])
        # The first token is not predicted.
        return TokenizedExample(ids, [index for index in scored if index], min(max(1, boundary), len(ids)))


def named_rule(tokenization: Any) -> str | dict[str, TokenRule] | None:
    """The rule that a manifest names; None if ids were given.

    Raises:
        SettingsError: it is not a valid entry.
    """
    if tokenization in TOKENIZATIONS:
        return str(tokenization)
    if isinstance(tokenization, Mapping) and tokenization.keys() == {"rules"}:
        rules = tokenization["rules"]
        if isinstance(rules, Mapping) and rules:
            return {str(name): TokenRule.of(values) for name, values in rules.items()}
    if isinstance(tokenization, Mapping) and tokenization.keys() == {"rows"} and isinstance(tokenization["rows"], str):
        return None
    raise SettingsError(f"unknown tokenization {tokenization!r}")


class TrainedExample(NamedTuple):
    """An example's texts, and the tokens that a trainer makes from them."""

    prompt: str
    target: str
    tokens: TokenizedExample

    def agrees(self, tokenizer: PreTrainedTokenizerBase, rule: TokenRule) -> bool:
        """Whether a rule makes tokens with the same loss."""
        return self.tokens.has_same_loss(rule.tokens(tokenizer, self.prompt, self.target))


def infer_rule(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[TrainedExample],
    preferred: Sequence[TokenRule] = (),
    lengths: Sequence[int] = (),
) -> TokenRule | None:
    """The first of `fitting_rules`; None if there is none."""
    return next(fitting_rules(tokenizer, examples, preferred, lengths), None)


def fitting_rules(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[TrainedExample],
    preferred: Sequence[TokenRule] = (),
    lengths: Sequence[int] = (),
) -> Iterator[TokenRule]:
    """Rules that make exactly the trained ids and scored positions of all examples, plain ones first.

    Args:
        tokenizer: of the model.
        examples: texts with their tokens.
        preferred: rules that are tried first.
        lengths: lengths at which the trainer may cut sequences, in addition to that of the longest example.
    """
    # The constant texts around prompt and target are inferred from the shortest example, which is least likely cut.
    ordered = sorted(
        (example for example in examples if example.tokens.scored), key=lambda example: len(example.tokens)
    )
    if not ordered:
        return
    shortest = ordered[0]
    # A few examples of all lengths come first, because they rule out most rules.
    screened = [*ordered[:: max(1, len(ordered) // 8)], *ordered]

    def fits(rule: TokenRule) -> bool:
        return all(example.agrees(tokenizer, rule) for example in screened)

    yield from filter(fits, preferred)
    limits = list(dict.fromkeys([len(ordered[-1].tokens), *lengths]))
    for rule in _candidates(tokenizer, shortest):
        if not shortest.agrees(tokenizer, rule):
            continue
        if fits(rule):
            yield rule
            continue
        shorter = (replace(rule, cut=cut, max_length=limit) for cut, limit in product(_CUTS, limits))
        yield from islice(filter(fits, shorter), 1)


def _candidates(tokenizer: PreTrainedTokenizerBase, example: TrainedExample) -> Iterator[TokenRule]:
    """Rules that give the ids of an example, plain ones first."""
    trained = example.tokens.ids_of_loss
    yielded: set[TokenRule] = set()
    kinds: list[tuple[Any, Any]] = [("joined", "start"), ("joined", "none"), ("separate", "none")]
    kinds += [("separate", "start"), ("separate", "both")]
    for texts in _surroundings(tokenizer, example):
        for text, special in kinds:
            plain = TokenRule(text, special, *texts)
            ids = plain.tokens(tokenizer, example.prompt, example.target).ids
            if ids != trained[: len(ids)]:
                # For example, the tokenizer adds special tokens at the end, but the training does not.
                continue
            ending = tuple(trained[len(ids) :])
            if len(ending) > 8:
                continue
            for scored in _SCORED:
                rule = replace(plain, ending=ending, scored=scored)
                if rule not in yielded:
                    yielded.add(rule)
                    yield rule


def _surroundings(
    tokenizer: PreTrainedTokenizerBase, example: TrainedExample
) -> Iterator[tuple[bool, str, str, str, str]]:
    """Whether texts are stripped, and the constant texts around them: first none, then those in the decoded ids."""
    yield False, "", "", "", ""
    ids = example.tokens.ids_of_loss
    # Some tokenizers decode the text after a start-of-text token differently.
    parts = [ids[1:], ids] if ids[0] == tokenizer.bos_token_id else [ids]
    texts = [tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False) for part in parts]
    start = str(tokenizer.bos_token or "")
    for text, stripped in product(texts, (False, True)):
        prompt, target = example.prompt, example.target
        if stripped:
            prompt, target = prompt.strip(), target.strip()
        for begin, middle in _places(text, prompt, target):
            before, between, after = text[:begin], text[begin + len(prompt) : middle], text[middle + len(target) :]
            befores = [before.removeprefix(start), before] if start and before.startswith(start) else [before]
            # An ending that begins with a special token does not merge with the target, so its ids are enough.
            special = any(token and after.startswith(token) for token in _special_texts(tokenizer))
            afters = ["", after] if special else [after, ""]
            for first, last in product(befores, dict.fromkeys(afters)):
                for after_prompt, before_target in dict.fromkeys([(between, ""), ("", between)]):
                    yield stripped, first, after_prompt, before_target, last


def _places(text: str, prompt: str, target: str) -> list[tuple[int, int]]:
    """Possible positions of prompt and target in a text, as the text around them may have the same words."""
    places: dict[tuple[int, int], None] = {}
    for middle in (text.rfind(target), text.find(target, max(0, text.find(prompt)) + len(prompt))):
        for start in (text.find(prompt), text.rfind(prompt, 0, max(0, middle))):
            if start >= 0 and start + len(prompt) <= middle:
                places[start, middle] = None
    return list(places)


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]


def first_difference(
    tokenizer: PreTrainedTokenizerBase,
    first: TokenizedExample,
    second: TokenizedExample,
    names: tuple[str, str] = ("trained on", "its texts make"),
    width: int = 12,
) -> str:
    """A message about the first difference between two tokenisations of an example.

    Args:
        tokenizer: of the model.
        first, second: the tokens to compare.
        names: a label for each.
        width: number of tokens shown around the first difference.
    """
    position = common_prefix(first.ids_of_loss, second.ids_of_loss)
    if first.ids_of_loss == second.ids_of_loss:
        position = min([*first.scored, *second.scored])
    start = max(0, position - width // 2)

    def printable(token: Any) -> str:
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(token))

    def excerpt(tokens: TokenizedExample) -> str:
        texts = map(printable, tokenizer.convert_ids_to_tokens(tokens.ids_of_loss[start : start + width]))
        marked = [f"[{text}]" if place in tokens.scored else text for place, text in enumerate(texts, start)]
        return " ".join(marked) or "(nothing)"

    return f"{names[0]} {excerpt(first)}; {names[1]} {excerpt(second)} (tokens in [] have a loss)"
