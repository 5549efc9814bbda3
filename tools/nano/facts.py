"""Plain statements of invented facts, written the way a data-to-text prompt is written.

A base model of this size would otherwise never have seen a list of triples followed by a sentence
that says them. No row of any task is used: subjects are names found in the pretraining text or made
from the lists below, and every relation and wording is our own.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator

GIVEN = (
    "Anna Boris Clara David Elena Felix Greta Hugo Irene Jonas Karin Louis Maria Nils Olga Peter Rosa Simon Tanja "
    "Viktor Wanda Yusuf Amara Chen Diego Fatima Hana Ivan Kofi Leila Mateo Priya"
).split()
FAMILY = (
    "Adler Brandt Castro Dietrich Evans Fischer Garcia Haddad Ivanov Jensen Keller Lindgren Moreau Novak Okafor "
    "Petrov Quinn Rossi Schmidt Tanaka Ueda Vogel Weber Yilmaz Zhang Bauer Costa Duarte"
).split()
CITY = (
    "Berlin Paris Rome Vienna Madrid Lisbon Oslo Prague Dublin Athens Warsaw Cairo Lima Delhi Tokyo Sydney Boston "
    "Chicago Denver Toronto Havana Nairobi Hamburg Munich Lyon Turin Porto Leeds Bergen"
).split()
COUNTRY = (
    "Germany France Italy Austria Spain Portugal Norway Ireland Greece Poland Egypt Peru India Japan Australia "
    "Canada Cuba Kenya Brazil Chile Mexico Turkey Iceland Finland Denmark Romania Vietnam"
).split()
WORK = ("novel film album song painting opera poem magazine newspaper statue museum bridge").split()
JOB = ("writer painter engineer physician lawyer pilot farmer architect singer footballer").split()
DISH = ("soup stew cake bread salad dumpling curry pudding pie sausage").split()
FOOD = ("rice onion garlic butter sugar tomato cheese beef chicken pepper milk flour potato").split()

# Each relation: name, kind of subject, kind of value, and wordings of ours with {s} and {o}.
RELATIONS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("birth place", "person", "city", ("{s} was born in {o}.", "{o} is the birth place of {s}.")),
    ("birth date", "person", "date", ("{s} was born on {o}.", "The birth date of {s} is {o}.")),
    ("occupation", "person", "job", ("{s} works as a {o}.", "{s} is a {o}.")),
    ("nationality", "person", "country", ("{s} comes from {o}.", "{s} is a national of {o}.")),
    ("club", "person", "place", ("{s} plays for {o}.", "The club of {s} is {o}.")),
    ("spouse", "person", "person", ("{s} is married to {o}.", "{o} is the spouse of {s}.")),
    ("country", "place", "country", ("{s} is in {o}.", "{s} is located in the country of {o}.")),
    ("location", "place", "city", ("{s} is located in {o}.", "{s} can be found in {o}.")),
    ("is part of", "place", "place", ("{s} is part of {o}.", "{s} belongs to {o}.")),
    ("leader", "place", "person", ("The leader of {s} is {o}.", "{s} is led by {o}.")),
    ("population", "place", "number", ("{s} has {o} inhabitants.", "The population of {s} is {o}.")),
    ("area", "place", "number", ("{s} covers an area of {o}.", "The area of {s} is {o}.")),
    ("elevation", "place", "number", ("{s} is {o} metres above sea level.", "The elevation of {s} is {o}.")),
    ("capital", "country", "city", ("The capital of {s} is {o}.", "{o} is the capital of {s}.")),
    ("language", "country", "place", ("{o} is spoken in {s}.", "The language of {s} is {o}.")),
    ("author", "work", "person", ("{s} was written by {o}.", "{o} is the author of {s}.")),
    ("publisher", "work", "place", ("{s} was published by {o}.", "The publisher of {s} is {o}.")),
    ("completion date", "work", "date", ("{s} was completed on {o}.", "The completion date of {s} is {o}.")),
    ("owner", "work", "person", ("{o} owns {s}.", "The owner of {s} is {o}.")),
    ("ingredient", "dish", "food", ("{o} is an ingredient of {s}.", "{s} contains {o}.")),
    ("region", "dish", "country", ("{s} is a dish from {o}.", "{s} comes from {o}.")),
    ("length", "work", "number", ("{s} is {o} metres long.", "The length of {s} is {o}.")),
)
SUBJECTS = ("person", "place", "country", "work", "dish")
MONTHS = ("January February March April May June July August September October November December").split()

_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,}){0,2}")


def names_in(texts: Iterable[str], at_least: int = 2, most: int = 4000) -> list[str]:
    """Capitalised names of one to three words that stand inside sentences, most frequent first.

    Args:
        texts: documents to search.
        at_least: a name seen less often than this is left out.
        most: how many names to keep.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_NAME.findall(text))
    kept = [(name, n) for name, n in counts.items() if n >= at_least]
    return [name for name, _ in sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:most]]


def _value(kind: str, names: list[str], rng: random.Random) -> str:
    match kind:
        case "person":
            return f"{rng.choice(GIVEN)} {rng.choice(FAMILY)}"
        case "place":
            return rng.choice(names)
        case "city":
            return rng.choice(CITY + names[: len(CITY)])
        case "country":
            return rng.choice(COUNTRY)
        case "work":
            return f"the {rng.choice(WORK)} {rng.choice(names)}"
        case "dish":
            return f"{rng.choice(names)} {rng.choice(DISH)}"
        case "food":
            return rng.choice(FOOD)
        case "job":
            return rng.choice(JOB)
        case "date":
            return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1800, 2020)}"
        case _:
            return f"{rng.randint(2, 90000) / rng.choice((1, 1, 10)):g}"


def fact_documents(count: int, names: list[str], seed: int) -> Iterator[str]:
    """Documents `Facts: s | relation | o; ...` newline `Text: ...`, one to four facts each.

    Args:
        count: how many documents.
        names: proper names to draw subjects and values from (`names_in`).
        seed: the same seed gives the same documents.
    """
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.choice(SUBJECTS)
        subject = _value(kind, names, rng)
        fitting = [relation for relation in RELATIONS if relation[1] == kind]
        chosen = rng.sample(fitting, min(len(fitting), rng.choice((1, 1, 2, 2, 3, 4))))
        facts, sentences = [], []
        for relation, _subject, value_kind, wordings in chosen:
            value = _value(value_kind, names, rng)
            facts.append(f"{subject} | {relation} | {value}")
            sentence = rng.choice(wordings).format(s=subject, o=value)
            sentences.append(sentence[0].upper() + sentence[1:])
        yield f"Facts: {'; '.join(facts)}\nText: {' '.join(sentences)}"
