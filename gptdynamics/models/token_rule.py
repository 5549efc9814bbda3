"""The rule by which a trainer makes token ids and labels of a prompt and a target, and how it is inferred."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gptdynamics.configs import TOKENIZATIONS
from gptdynamics.errors import DataError, SettingsError

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


class Tokens(NamedTuple):
    """Token ids of an example, and what the loss is the mean over.

    Attributes:
        ids: the whole sequence.
        scored: positions, ascending and at least 1, of the tokens that the loss is the mean over.
        prompt_length: how many ids come before the target's text; at least 1.
    """

    ids: list[int]
    scored: list[int]
    prompt_length: int


@dataclass(frozen=True)
class TokenRule:
    """How token ids and labels are made of a prompt and a target.

    Attributes:
        text: `joined`: prompt and target are one text, tokenised once; `separate`: each is tokenised alone.
        special_tokens: whether the tokenizer adds its own special tokens: `none`; `start`: to the joined text, or to
            the prompt; `both`: to the prompt and to the target.
        stripped: whether prompt and target lose the white space at their ends first.
        before_prompt, after_prompt, before_target, after_target: constant texts around prompt and target.
        ending: constant ids after the text, such as the end of text.
        scored: what the loss is the mean over: `target`: tokens that hold a character of the target, and the ending;
            `after_common_prefix`: what follows the ids that the prompt alone and the whole text begin with alike, as
            TRL does; `after_prompt_count`: what follows as many ids as the prompt alone has; `all`: every token.
        cut: what a sequence longer than `max_length` loses: `none`; its `right` end; its right end but for the ending
            (`right_before_ending`); its `left` end; or the `left_of_prompt`, as `tokenize_example` does.
        max_length: longest sequence in tokens; None where nothing is cut.
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
        """From what `to_dict` made.

        Raises:
            SettingsError: a value is missing, unknown or not of its kind.
        """
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            raise SettingsError(f"tokenization {values!r} is not a rule of this version")
        for name, allowed in _CHOICES.items():
            if values[name] not in allowed:
                raise SettingsError(f"tokenization: {name}={values[name]!r} must be one of {', '.join(allowed)}")
        ending, longest = values["ending"], values["max_length"]
        sound = isinstance(ending, list) and all(type(token) is int and token >= 0 for token in ending)
        sound = sound and all(isinstance(values[name], str) for name in _TEXTS) and type(values["stripped"]) is bool
        if not sound or (longest is not None and (type(longest) is not int or longest < 1)):
            raise SettingsError("tokenization: a value is of the wrong type")
        return cls(**(values | {"ending": tuple(ending)}))

    def tokens(self, tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> Tokens:
        """Token ids of a prompt and its target.

        Args:
            tokenizer: of the model.
            prompt, target: texts of an example; the prompt may be empty.
        """
        if self.stripped:
            prompt, target = prompt.strip(), target.strip()
        before = self.before_prompt + prompt + self.after_prompt
        after = self.before_target + target + self.after_target
        if self.text == "joined":
            begin, ids, boundary = self._joined(tokenizer, before, after)
        else:
            first = _encode(tokenizer, before, self.special_tokens != "none") if before else []
            begin, boundary = 0, len(first)
            ids = first + _encode(tokenizer, after, self.special_tokens == "both")
        whole = [*ids, *self.ending]
        start = boundary
        if self.scored == "all":
            start = 0
        elif self.scored != "target":
            alone = _encode(tokenizer, before, self.special_tokens != "none")
            start = len(alone) if self.scored == "after_prompt_count" else _common_prefix(alone, whole)
        return self._cut(whole, list(range(start, len(whole))), boundary, begin)

    def _joined(self, tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> tuple[int, list[int], int]:
        """How many special tokens come first, the ids, and where those of `after` begin."""
        special = self.special_tokens != "none"
        encoding = tokenizer(
            before + after,
            add_special_tokens=special,
            return_special_tokens_mask=True,
            return_offsets_mapping=tokenizer.is_fast,
            verbose=False,
        )
        ids = list(encoding["input_ids"])
        of_text = [index for index, added in enumerate(_added_mask(encoding, ids, special)) if not added]
        if not of_text:
            return len(ids), ids, len(ids)
        first, last = of_text[0], of_text[-1] + 1
        if tokenizer.is_fast:
            ends = [end for _, end in encoding["offset_mapping"]]
            boundary = next((index for index in range(first, last) if ends[index] > len(before)), last)
        else:
            boundary = min(_common_prefix(_encode(tokenizer, before, special), ids), last) if before else first
        return first, ids, max(first, boundary)

    def _cut(self, ids: list[int], scored: list[int], boundary: int, begin: int) -> Tokens:
        over = 0 if self.max_length is None else len(ids) - self.max_length
        if over > 0 and self.cut != "none" and self.max_length is not None:
            end = len(ids) - (len(self.ending) if self.cut == "right_before_ending" else 0)
            lost = {
                "right": range(self.max_length, len(ids)),
                "right_before_ending": range(max(0, end - over), end),
                "left": range(over),
                "left_of_prompt": range(begin, min(begin + over, boundary)),
            }[self.cut]
            ids = [token for index, token in enumerate(ids) if index not in lost]
            scored = [index - sum(1 for each in lost if each < index) for index in scored if index not in lost]
            boundary -= len([index for index in lost if index < boundary])
        # Nothing is predicted for the first token.
        return Tokens(ids, [index for index in scored if index], min(max(1, boundary), len(ids)))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def _added_mask(encoding: Any, ids: list[int], special: bool) -> list[int]:
    """Which ids the tokenizer added. Without special tokens, it did not add those that the text holds itself."""
    return list(encoding["special_tokens_mask"]) if special else [0] * len(ids)


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(left), len(right)))


def named_rule(tokenization: Any) -> str | dict[str, TokenRule] | None:
    """The rule that a manifest names; None where ids were given.

    Raises:
        SettingsError: it is none.
    """
    if tokenization in TOKENIZATIONS:
        return str(tokenization)
    if isinstance(tokenization, Mapping) and tokenization.keys() == {"rules"}:
        rules = tokenization["rules"]
        if isinstance(rules, Mapping) and rules:
            return {str(name): TokenRule.of(values) for name, values in rules.items()}
    if isinstance(tokenization, Mapping) and tokenization.keys() == {"rows"} and isinstance(tokenization["rows"], str):
        return None
    raise SettingsError(f"tokenization {tokenization!r} is none")


@dataclass(frozen=True)
class TrainedExample:
    """What a trainer makes of an example.

    Attributes:
        prompt, target: its texts.
        ids: token ids up to the last one that is scored: what follows changes no loss.
        scored: positions in `ids`, at least 1, of the tokens that the loss is the mean over.
        length: of the whole sequence in tokens.
    """

    prompt: str
    target: str
    ids: tuple[int, ...]
    scored: tuple[int, ...]
    length: int

    def agrees(self, tokens: Tokens) -> bool:
        """Whether these are the same ids and scored positions."""
        end = tokens.scored[-1] + 1 if tokens.scored else 0
        return tuple(tokens.scored) == self.scored and tuple(tokens.ids[:end]) == self.ids


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
        examples: what was made of texts.
        preferred: rules that are tried first.
        lengths: limits at which the trainer may cut sequences, besides the longest of the examples.
    """
    # The shortest tells what is around the texts: it is cut last.
    ordered = sorted((each for each in examples if each.scored), key=lambda each: each.length)
    if not ordered:
        return
    # A few of all lengths rule out most rules soon.
    screened = [*ordered[:: max(1, len(ordered) // 8)], *ordered]

    def fits(rule: TokenRule) -> bool:
        return all(each.agrees(rule.tokens(tokenizer, each.prompt, each.target)) for each in screened)

    yield from filter(fits, preferred)
    limits = list(dict.fromkeys([ordered[-1].length, *lengths]))
    for rule in _candidates(tokenizer, ordered[0]):
        if not ordered[0].agrees(rule.tokens(tokenizer, ordered[0].prompt, ordered[0].target)):
            continue
        if fits(rule):
            yield rule
            continue
        shorter = (replace(rule, cut=cut, max_length=limit) for cut, limit in product(_CUTS, limits))
        yield from islice(filter(fits, shorter), 1)


def _candidates(tokenizer: PreTrainedTokenizerBase, example: TrainedExample) -> Iterator[TokenRule]:
    """Rules that may have made an example, plain ones first."""
    seen: set[TokenRule] = set()
    kinds: list[tuple[Any, Any]] = [("joined", "start"), ("joined", "none"), ("separate", "none")]
    kinds += [("separate", "start"), ("separate", "both")]
    for texts in _surroundings(tokenizer, example):
        for text, special in kinds:
            plain = TokenRule(text, special, *texts)
            ids = plain.tokens(tokenizer, example.prompt, example.target).ids
            if tuple(ids) != example.ids[: len(ids)]:
                # Special tokens that the tokenizer puts at the end may not be there in training.
                continue
            ending = example.ids[len(ids) :]
            if len(ending) > 8:
                continue
            for scored in _SCORED:
                rule = replace(plain, ending=ending, scored=scored)
                if rule not in seen:
                    seen.add(rule)
                    yield rule


def _surroundings(
    tokenizer: PreTrainedTokenizerBase, example: TrainedExample
) -> Iterator[tuple[bool, str, str, str, str]]:
    """Whether texts are stripped, and constant texts that may be around them: none, then what the decoded ids show."""
    yield False, "", "", "", ""
    ids = list(example.ids)
    # A start of text hides from some tokenizers that the text begins after it.
    parts = [ids[1:], ids] if ids[0] == tokenizer.bos_token_id else [ids]
    texts = [tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False) for part in parts]
    for text, stripped in product(texts, (False, True)):
        prompt, target = example.prompt, example.target
        if stripped:
            prompt, target = prompt.strip(), target.strip()
        for begin, middle in _places(text, prompt, target):
            before, between, after = text[:begin], text[begin + len(prompt) : middle], text[middle + len(target) :]
            start = str(tokenizer.bos_token or "")
            befores = [before.removeprefix(start), before] if start and before.startswith(start) else [before]
            # An ending that begins with a special token cannot merge with the target: it is known by its ids.
            special = any(token and after.startswith(token) for token in _special_texts(tokenizer))
            afters = ["", after] if special else [after, ""]
            for first, last in product(befores, dict.fromkeys(afters)):
                for after_prompt, before_target in dict.fromkeys([(between, ""), ("", between)]):
                    yield stripped, first, after_prompt, before_target, last


def _places(text: str, prompt: str, target: str) -> list[tuple[int, int]]:
    """Where prompt and target may stand in a text; what is around them may have the same words."""
    places: dict[tuple[int, int], None] = {}
    for middle in (text.rfind(target), text.find(target, max(0, text.find(prompt)) + len(prompt))):
        for begin in (text.find(prompt), text.rfind(prompt, 0, max(0, middle))):
            if begin >= 0 and begin + len(prompt) <= middle:
                places[begin, middle] = None
    return list(places)


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]


def first_difference(
    tokenizer: PreTrainedTokenizerBase,
    trained: TrainedExample,
    measured: Tokens,
    names: tuple[str, str] = ("trained on", "its texts make"),
    shown: int = 12,
) -> str:
    """How two ways to make tokens differ, for a message: the tokens around the first one that does.

    Args:
        tokenizer: of the model.
        trained, measured: what is compared.
        names: what each of them is called.
        shown: tokens.
    """
    end = measured.scored[-1] + 1 if measured.scored else 0
    ours = measured.ids[:end]
    place = _common_prefix(trained.ids, ours)
    start = max(0, place - shown // 2)

    def shown_token(token: Any) -> str:
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(token))

    def said(ids: Sequence[int], scored: Sequence[int]) -> str:
        tokens = enumerate(tokenizer.convert_ids_to_tokens(list(ids[start : start + shown])))
        marks = [
            f"[{shown_token(token)}]" if start + index in scored else shown_token(token) for index, token in tokens
        ]
        return " ".join(marks) or "(nothing)"

    if trained.ids == tuple(ours):
        start = max(0, min([*trained.scored, *measured.scored]) - shown // 2)
    first, second = said(trained.ids, trained.scored), said(ours, measured.scored)
    return f"{names[0]} {first}; {names[1]} {second} ([] is scored)"


def check_scored(tokens: Tokens, where: str) -> Tokens:
    """Refuse an example of which no token is scored.

    Raises:
        DataError: it is one.
    """
    if not tokens.scored:
        raise DataError(
            f"{where}: no token of its target is left where the trainer cuts sequences, so it has no loss. "
            "Leave the example out, or let the trainer's max_length be larger"
        )
    return tokens
