"""Mini sentiment: is a one-sentence review positive or negative? All reviews come from a grammar."""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

from gptdynamics.tasks import grammar
from gptdynamics.tasks.grammar import GeneratedTask, was, with_article
from gptdynamics.tasks.task import Row

# Words of praise (+) and of blame (-) for each kind of aspect; `strong` ones fit everything.
LEXICON = """
story + engaging moving witty clever absorbing imaginative captivating
story - dull tedious predictable clumsy muddled tiresome forgettable
show + lively spirited polished graceful inspired expressive stirring
show - lifeless sloppy listless uninspired monotonous feeble wooden
food + delicious tasty flavourful appetising fresh mouth-watering tempting
food - bland tasteless insipid unappetising flavourless uninviting greasy
room + comfortable cosy inviting tidy pleasant clean welcoming
room - filthy cramped shabby musty grubby dingy dusty
people + friendly helpful attentive patient courteous thoughtful kind
people - rude careless surly indifferent unhelpful impatient grumpy
device + reliable sturdy robust dependable responsive handy durable
device - unreliable flimsy fragile sluggish clunky shoddy temperamental
strong + wonderful superb excellent delightful splendid marvellous outstanding lovely brilliant terrific
strong + fantastic magnificent exceptional impressive tremendous great
strong - terrible dreadful awful dismal disappointing mediocre horrible atrocious lousy woeful unpleasant
strong - annoying abysmal appalling pathetic irritating
verb + delight charm impress please thrill enchant cheer captivate amaze intrigue
verb - annoy disappoint irritate frustrate exasperate dismay disgust bother depress displease
"""
WORDS: dict[tuple[str, bool], list[str]] = {}
for _style, _sign, *_words in map(str.split, LEXICON.strip().splitlines()):
    WORDS.setdefault((_style, _sign == "+"), []).extend(_words)


class Thing(NamedTuple):
    """Something that is reviewed: its style, its aspects by style, and the words that go with it."""

    noun: str
    of: str
    had: str
    use: str
    style: str
    aspects: dict[str, str]
    details: str
    mishap: str


THINGS = (
    Thing("film", "of", "had", "see", "story", {"story": "plot ending dialogue characters", "show": "actors"},
          "about the lighthouse|my cousin picked|at the old cinema", "the sound failed before the ending"),
    Thing("play", "of", "had", "see", "story", {"story": "plot dialogue", "show": "actors staging musicians"},
          "about two brothers|in the barn|by the local company", "half the actors forgot their lines"),
    Thing("novel", "of", "had", "read", "story", {"story": "plot ending prose characters chapters"},
          "about a lost map|from the library|my aunt lent me", "the last ten pages were missing"),
    Thing("dinner", "at", "came with", "book", "food",
          {"food": "soup dessert bread sauce vegetables dumplings fish"},
          "on the boat|in the old mill|after the wedding", "the main course arrived at midnight"),
    Thing("restaurant", "at", "had", "visit", "room",
          {"food": "soup dessert bread", "people": "waiters", "room": "tables terrace"},
          "by the canal|on the square|behind the theatre", "they charged us for the salt"),
    Thing("hotel", "at", "had", "book", "room", {"room": "rooms lobby bathroom lounge",
          "people": "cleaners receptionist porter", "food": "breakfast"},
          "near the station|above the lake|in the old town", "the lift stopped between two floors"),
    Thing("phone", "of", "had", "buy", "device", {"device": "screen battery camera speakers buttons"},
          "from the corner shop|I bought in May|my brother chose", "the screen went dark after an hour"),
    Thing("laptop", "of", "had", "buy", "device", {"device": "keyboard screen battery speakers touchpad"},
          "from the sale|my office ordered|with the grey lid", "half the keys came off in a week"),
    Thing("concert", "at", "had", "attend", "show",
          {"show": "singing encore orchestra choir solos drumming", "people": "ushers"},
          "in the park|on Friday|under the bridge", "our seats were behind a pillar"),
    Thing("train", "on", "had", "take", "room",
          {"room": "seats carriage", "people": "conductor stewards", "food": "sandwiches"},
          "to the coast|across the border|from the airport", "we stood in the corridor for five hours"),
    Thing("museum", "at", "had", "visit", "story",
          {"story": "exhibits", "people": "guides guards", "room": "halls entrance"},
          "on the hill|in the castle|by the river", "every second room was locked"),
    Thing("tour", "on", "had", "join", "story",
          {"story": "stories", "people": "guide driver", "food": "lunch snacks"},
          "of the old mines|round the island|through the gardens", "the bus left without us"),
)  # fmt: skip

# Words without a polarity, by slot.
NEUTRAL: dict[str, tuple[str, ...]] = {
    "someone": ("us", "me", "my sister", "our friends", "my parents", "the children"),
    "so": ("", "", "", "really ", "truly ", "quite ", "simply "),
    "view": ("in my view", "to my mind", "all in all", "on the whole", "as far as I could tell"),
    "although": ("although", "even though", "though"),
    "not": ("not at all", "by no means", "in no way", "anything but", "far from"),
    "thought": ("we had expected", "we had thought possible", "our friends had told us"),
    "who": ("a colleague", "my neighbour", "the newspaper", "my cousin", "our guest"),
    "when": ("tomorrow", "next year", "at twice the price", "without a second thought"),
    "if": ("at any price", "for half the price", "even if it cost nothing", "until a few things change"),
}
# Words that a sentence uses once at most.
ONCE = {word for words in WORDS.values() for word in words}
ONCE |= {phrase.split()[-1] for slot in ("someone", "so") for phrase in NEUTRAL[slot] if phrase}
# Kind, label (= for both) and pattern. Slots that end in + are of the label's polarity, in - of the other.
GRAMMAR = """
plain = {first+}
plain = {view}, {first+}
plain = {whole+}
plain = {name} {had} {part+}
plain = we found {full} {word+}
plain = {name} {had} {part+}, and {second+}
plain = both the {aspect} and the {other} {of} {name} were {strong+}
plain = it was {a_thing_word+} {noun} with {part+}
plain = {first+}, and {second+}
plain = {full} {was} {more+} than {thought}
plain + I would {use} {name} again {when}
plain + anyone in doubt should {use} {name}, because {bare+}
plain + do not hesitate to {use} {name}, because {bare+}
plain - I would not {use} {name} again {if}
plain - nobody should have to {use} {name}, because {bare+}
plain - think twice before you {use} {name}, because {bare+}
turned = {although} {bare-}, {whole+}
turned = {although} {first-}, {second+}
turned = {whole+}, {although} {second-}
turned = {first+}, {although} {second-}
turned = {first-}, yet {second+}
turned = {bare-}, but {whole+}
turned = despite {part-}, {whole+}
turned = {full} {was} {not} {mild-}
turned = {full} did not {verb-} {someone} in the least
turned = {name} was {not} {thing_mild-}
turned = compared with {name}, most other {noun}s {have} {more_part-}
turned = last year's {noun} was far {thing_more-} than {name}
turned = {full} {was} far less {mild-} than {thought}
turned = we expected {a_thing_word-} {noun} and got {a_thing_word+} one
turned = {who} had called {name} {thing_word-}, yet {bare+}
hard = nobody could say that {full} {was} not {mild+}
hard = {full} never once failed to {verb+} {someone}
hard + the only {strong-} thing about {name} is that we will never find a better one
hard + after {a_strong-} week at work, {whole+}
hard + at the end of {a_strong-} winter, {first+}
hard - what {a_strong-} {noun}: {mishap}
hard - after {a_strong-} week at the sea, {whole+}
hard - at the end of {a_strong-} summer, {first+}
"""
PATTERNS: dict[tuple[str, bool], list[str]] = {}
for _kind, _sign, _pattern in (line.split(" ", 2) for line in GRAMMAR.strip().splitlines()):
    for _good in {"=": (True, False), "+": (True,), "-": (False,)}[_sign]:
        PATTERNS.setdefault((_kind, _good), []).append(_pattern)
# Label and kind of the rows of a block.
BLOCK = [(good, kind) for good in (True, False) for kind in ["plain"] * 16 + ["turned"] * 8 + ["hard"]]
_SLOT = re.compile(r"\{(\w+)([+-]?)\}")


class Review:
    """A thing with two of its aspects, and the words drawn to review it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.thing = rng.choice(THINGS)
        aspects = [(noun, style) for style, nouns in self.thing.aspects.items() for noun in nouns.split()]
        (self.aspect, self.style), (self.other, other_style) = rng.sample(aspects, 2)
        name = f"the {self.thing.noun} {rng.choice(self.thing.details.split('|'))}"
        full = f"the {self.aspect} {self.thing.of} {name}"
        self.subjects = {
            "first": (full, self.aspect, self.style),
            "bare": (f"the {self.aspect}", self.aspect, self.style),
            "second": (f"the {self.other}", self.other, other_style),
            "whole": (name, self.thing.noun, self.thing.style),
        }
        self.fixed: dict[str, Any] = self.thing._asdict() | {
            "name": name,
            "aspect": self.aspect,
            "other": self.other,
            "full": full,
            "was": was(self.aspect),
            "have": "come with" if self.thing.had == "came with" else "have",
        }

    def fill(self, pattern: str, good: bool) -> str:
        """The pattern with all slots filled, for a review that is good or bad."""

        def slot(match: re.Match[str]) -> str:
            name, sign = match.groups()
            if sign:
                return self.polar(name, good == (sign == "+"))
            return self.rng.choice(NEUTRAL[name]) if name in NEUTRAL else self.fixed[name]

        return _SLOT.sub(slot, pattern)

    def polar(self, slot: str, good: bool) -> str:
        """A word, phrase or clause of one polarity."""
        if slot.startswith("a_"):
            return with_article(self.polar(slot.removeprefix("a_"), good))
        match slot:
            case "first" | "bare" | "second" | "whole":
                return self.clause(*self.subjects[slot], good)
            case "verb" | "strong":
                return self.rng.choice(WORDS[slot, good])
            case "mild" | "thing_mild":
                return self.rng.choice(WORDS[self.thing.style if "thing" in slot else self.style, good])
            case "word" | "thing_word":
                return self.polar("strong" if self.rng.random() < 0.4 else slot.replace("word", "mild"), good)
            case "more" | "thing_more":
                return grammar.comparative(self.polar(slot.replace("more", "mild"), good))
            case "part" | "more_part":
                adjective = self.polar("word" if slot == "part" else "more", good)
                return grammar.noun_phrase(adjective, self.aspect)
        raise KeyError(slot)

    def clause(self, subject: str, noun: str, style: str, good: bool) -> str:
        """`The plot was really witty` or `the plot delighted us`."""
        if self.rng.random() < 0.3:
            verb = self.polar("verb", good)
            return f"{subject} {verb.removesuffix('e')}ed {self.rng.choice(NEUTRAL['someone'])}"
        word = self.rng.choice(WORDS["strong" if self.rng.random() < 0.4 else style, good])
        return f"{subject} {was(noun)} {self.rng.choice(NEUTRAL['so'])}{word}"


class MiniSentiment(GeneratedTask):
    """Sentiment of generated one-sentence reviews."""

    name = "mini_sentiment"
    fields = {"sentence": str, "label": str}
    labels = (" positive", " negative")
    seed = 20240611
    block = BLOCK

    def prompt(self, row: Row) -> str:
        return f"Review: {row['sentence']}\nSentiment:"

    def target(self, row: Row) -> str:
        return f" {row['label'].strip()}"

    def draw(self, rng: random.Random, slot: tuple[bool, str]) -> Row:
        """A row of the wanted label and kind."""
        good, kind = slot
        while True:
            sentence = grammar.as_sentence(Review(rng).fill(rng.choice(PATTERNS[kind, good]), good))
            used = [word for word in re.findall(r"[a-z-]+", sentence) if {word, word[:-1], word[:-2]} & ONCE]
            if len(used) == len(set(used)):
                break
        row: dict[str, Any] = {"sentence": sentence, "label": "positive" if good else "negative"}
        return row | {"hard": True} if kind == "hard" else row

    def key(self, row: Row) -> str:
        return str(row["sentence"])
