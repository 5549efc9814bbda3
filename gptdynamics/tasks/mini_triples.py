"""Mini triples: say a record of one to three facts in English. All records come from a grammar."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from gptdynamics.errors import DataError
from gptdynamics.tasks import grammar
from gptdynamics.tasks.grammar import GeneratedTask, listed, with_article
from gptdynamics.tasks.task import Row

# Slots and what fills them, separated by commas.
LEXICON = """
given: Mara, Tobin, Ansel, Brida, Corin, Della, Edric, Fenna, Garrick, Hesta, Ivo, Jory, Keziah, Lorcan
given: Merrin, Nesta, Orla, Perrin, Quill, Rowan, Sorrel, Tamsin, Ulric, Verity, Wilf, Yara, Zeb, Linnet
family: Dell, Marsh, Finch, Hollow, Thorne, Pike, Reed, Sedge, Tully, Vane, Wicks, Yarrow, Ash, Birch
family: Crane, Drover, Fell, Gale, Hurst, Larch, Moss, Nettle, Orchard, Penny, Rudd, Sparrow, Teal, Weir
town: Elmford, Brackwell, Thistleby, Coldmere, Saltwick, Fernholt, Willowbeck, Larkmoor, Mossgate, Hartlow
town: Netherfold, Wrenfield, Otterby, Gorsey, Quernstow, Dunmarrow, Eastling, Oldacre, Penwhistle, Ashcombe
day: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday
some: two, three, four, five, six, seven
trade: baker, weaver, miller, potter, cooper, thatcher, tanner, fishmonger, beekeeper, joiner, innkeeper
trade: saddler, apothecary, eel catcher, shepherd, chandler, wheelwright, engraver
animal: goats, hens, sheep, ducks, cats, pigs, rabbits, doves, donkeys
tool: copper kettle, iron hoe, oak mallet, bent needle, ash ladder, brass lantern, old handsaw, ivory comb
music: fiddle, flute, drum, harp, lute, accordion, tin whistle
drink: plum cider, nettle tea, dark beer, elder wine, barley water, goat milk
dish: eel pie, leek soup, apple tart, smoked trout, honey cake, onion bread, mutton stew
crop: leeks, plums, turnips, pears, beans, cherries, onions, hops
pet: Bramble, Clover, Button, Thunder, Pepper, Juniper, Biscuit, Smoke
colour: blue, green, red, yellow, white, orange
place: village, hamlet, market town, fishing port, island village, old mill town
river: Oust, Tarn, Ebble, Isk, Wend, Lorn, Mire
valley: Orren, Calder, Hazel, Sable, Ivel, Marl
ware: pears, lace, baskets, cheese, bells, ropes, candles, honey
stock: horse, wool, cattle, cloth, goose, grain
number: 30, 40, 60, 85, 120, 150
house: inn, tavern, alehouse, tea house, guest house
shade: Blue, Old, Silver, Quiet, Black, Golden, Lucky
sign: Heron, Otter, Trout, Badger, Anchor, Plough, Swan, Barrel
"""


def _table(text: str) -> list[list[str]]:
    """The lines of a text, each cut at its bars."""
    return [line.split(" | ") for line in text.strip().splitlines()]


NAMES = {"person": "{given} {family}", "town": "{town}", "inn": "The {shade} {sign}"}
# Subject, relation, value and the verb phrases that say it: {o} is the value, {an} the value with an article.
RELATIONS = _table("""
person | trade | {trade} | is {an} | works as {an} | earns a living as {an}
person | town | {town} | lives in {o} | has a home in {o}
person | pets | {some} {animal} | keeps {o} | looks after {o}
person | tool | {tool} | works with {an} | never travels without {an}
person | instrument | {music} | plays the {o} | likes to play the {o}
person | drink | {drink} | drinks {o} | likes to drink {o}
person | dish | {dish} | is fond of {o} | likes to eat {o}
person | garden | {crop} | grows {o} | has a garden full of {o}
person | horse | {pet} | rides a horse called {o} | owns a horse named {o}
person | friend | {given} {family} | is a friend of {o} | counts {o} as a friend
person | teacher | {given} {family} | was taught by {o} | learned everything from {o}
person | market | {day} | goes to market every {o} | sells at the market on {o}s
person | front door | {colour} | lives behind {an} door | has {an} front door
town | kind | {place} | is {an}
town | valley | {valley} | lies in the {o} valley | can be found in the {o} valley
town | river | {river} | stands on the river {o} | looks out over the river {o}
town | market | {day} | holds a market every {o} | has a market on {o}s
town | known for | {ware} | is known for its {o} | is famous for its {o}
town | mayor | {given} {family} | is led by mayor {o} | has {o} as its mayor
town | houses | {number} | has {o} houses | consists of {o} houses
town | fair | {stock} | hosts a {o} fair | holds a {o} fair
inn | kind | {house} | is {an}
inn | town | {town} | stands in {o} | can be found in {o}
inn | owner | {given} {family} | belongs to {o} | is owned by {o}
inn | dish | {dish} | serves {o} | has {o} on the menu
inn | drink | {drink} | pours {o} | is known for its {o}
inn | rooms | {some} | has {o} rooms | lets {o} rooms
inn | closed | {day} | closes every {o} | stays shut on {o}s
inn | cat | {pet} | is home to a cat called {o} | has a cat named {o}
inn | walls | {colour} | is painted {o} | has {o} walls
""")
# Relations of the hard rows: the value changes its form or is not said at all.
HARD_RELATIONS = _table("""
person | animals | goose x 3 | keeps three geese | looks after three geese
person | animals | ox x 2 | keeps two oxen | looks after two oxen
person | animals | calf x 4 | keeps four calves | looks after four calves
person | hobby | mend clocks | mends clocks | spends the evenings mending clocks
person | hobby | carve spoons | carves spoons | spends the evenings carving spoons
person | hobby | fly kites | flies kites | spends the evenings flying kites
person | swims | no | cannot swim | never learned to swim
person | married | no | never married | has stayed single
person | gets up | noon | sleeps until noon | is never up before noon
person | feud | {given} {family} | has not spoken to {o} for years | refuses to sit beside {o}
person | debt to | {trade} | still owes the {o} money | has yet to pay the {o} back
town | road | none | can be reached only on foot | has no road
town | floods | never | has never been flooded | has stayed dry so far
town | street lamps | 0 | goes dark at sunset | has no street lamps
inn | dogs | yes | welcomes dogs | lets guests bring dogs
inn | children | no | admits no children | turns children away
inn | credit | no | expects guests to pay at once | never lets guests pay later
""")
# Subjects, the facts that are needed (kind, place, rest) and a sentence that says them all.
FRAMES = _table("""
person town inn | kind place rest | {s}, {kind} {place}, {rest}
person town inn | kind place rest | {s} is {kind} {place} and {rest}
person town inn | kind place rest | {kind} {place}, {s} {rest}
person town inn | kind place | {s} is {kind} {place}
person town inn | kind rest | {s}, {kind}, {rest}
person | kind rest | {s} is {kind} who {rest}
person | kind rest | the {bare} {s} {rest}
town inn | kind rest | {s} is {kind} that {rest}
person town inn | place rest | {s} {place} {rest}
town inn | kind | there is {kind} called {s}
person town inn | any | {s} {all}
""")


class Fact(NamedTuple):
    """A relation with its value, and the verb phrases that say it."""

    relation: str
    value: str
    phrases: list[str]


FILLERS: dict[str, list[str]] = {}
for _slot, _words in (line.split(": ") for line in LEXICON.strip().splitlines()):
    FILLERS.setdefault(_slot, []).extend(_words.split(", "))
KIND = {"person": "trade", "town": "kind", "inn": "kind"}
PLACE = {"person": "town", "town": "valley", "inn": "town"}
# Subject, number of facts and whether it is hard, of the rows of a block.
BLOCK = [
    (subject, count, False)
    for subject, times in (("person", 12), ("town", 4), ("inn", 4))
    for count in (1, 2, 2, 3, 3)
    for _ in range(times)
]
BLOCK[:4] = [("person", 2, True), ("person", 3, True), ("town", 2, True), ("inn", 3, True)]


def _filled(rng: random.Random, pattern: str) -> str:
    """The pattern with a random filler in each slot."""
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(FILLERS[slot[1]]), pattern)


def _fact(rng: random.Random, line: Sequence[str]) -> Fact:
    """A fact of a line of the relation tables."""
    _, relation, pattern, *phrases = line
    value = _filled(rng, pattern)
    return Fact(relation, value, [phrase.format(o=value, an=with_article(value)) for phrase in phrases])


def _wording(rng: random.Random, subject: str, name: str, facts: Sequence[Fact]) -> str | None:
    """One sentence that says all facts; None if the draw begins two of its phrases with the same verb."""
    by_name = {fact.relation: fact for fact in facts}
    kind, place = by_name.get(KIND[subject]), by_name.get(PLACE[subject])
    rest = [fact for fact in facts if fact not in (kind, place)]
    rng.shuffle(rest)
    parts_by_name = {"kind": kind, "place": place, "rest": rest}
    available = ([part for part, value in parts_by_name.items() if value], ["any"])
    frames = [frame for subjects, needs, frame in FRAMES if subject in subjects.split() and needs.split() in available]
    frame = rng.choice(frames)
    listed_facts = [fact for fact in (kind, place) if fact] + rest if "{all}" in frame else rest
    phrases = [rng.choice(fact.phrases) for fact in listed_facts]
    if len({phrase.split()[0] for phrase in phrases}) < len(phrases):
        return None
    where = "from {}" if subject == "person" else "in the {} valley" if subject == "town" else "in {}"
    sentence = frame.format(
        s=name.replace("The ", "the "),
        kind=with_article(kind.value) if kind else "",
        bare=kind.value if kind else "",
        place=where.format(place.value) if place else "",
        rest=listed(phrases) if phrases else "",
        all=listed(phrases) if phrases else "",
    )
    return grammar.as_sentence(sentence)


class MiniTriples(GeneratedTask):
    """Sentences from small records of an invented world."""

    name = "mini_triples"
    text_tokenizer = "13a"
    fields = {"triples": list, "references": list}
    seed = 20240612
    block = BLOCK

    def prompt(self, row: Row) -> str:
        record: list[str] = []
        subject = None
        for triple in row["triples"]:
            parts = [part.strip() for part in triple.split("|", 2)]
            if len(parts) < 3:
                raise DataError(f"triple {triple!r} must be written as `subject | relation | value`")
            if parts[0] != subject:
                subject = parts[0]
                record.append(f"name = {subject}")
            record.append(f"{parts[1]} = {parts[2]}")
        return f"Record: {'; '.join(record)}\nNote:"

    def target(self, row: Row) -> str:
        return f" {row['references'][0]}"

    def references(self, row: Row) -> Sequence[str]:
        return list(row["references"])

    def draw(self, rng: random.Random, slot: tuple[str, int, bool]) -> Row:
        """A row about a subject, with so many facts; a hard row has one hard fact."""
        subject, count, hard = slot
        name = _filled(rng, NAMES[subject])
        usual = [line for line in RELATIONS if line[0] == subject]
        core = [line for line in usual if line[1] in (KIND[subject], PLACE[subject])]
        chance = 0.5 if count > 1 else 0.1
        lines = [line for line in core if rng.random() < chance][: count - hard]
        lines += rng.sample([line for line in usual if line not in core], count - hard - len(lines))
        rng.shuffle(lines)
        if hard:
            fitting = [line for line in HARD_RELATIONS if line[0] == subject]
            lines.insert(rng.randrange(count), rng.choice(fitting))
        facts = [_fact(rng, line) for line in lines]
        reference_count, tries = rng.choice((2, 3)), 0
        references: list[str] = []
        while len(references) < reference_count and (tries := tries + 1) < 50:
            text = _wording(rng, subject, name, facts)
            if text and text not in references:
                references.append(text)
        row: dict[str, Any] = {
            "triples": [f"{name} | {fact.relation} | {fact.value}" for fact in facts],
            "references": references,
        }
        return row | {"hard": True} if hard else row

    def key(self, row: Row) -> frozenset[str]:
        return frozenset(row["triples"])
