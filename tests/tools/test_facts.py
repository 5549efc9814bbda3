from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tools.nano.facts import RELATIONS, SUBJECTS, fact_documents, names_in

NAMES = ["Northgate", "Silver Lake", "Ashford", "Mill Hill"]


@given(st.integers(0, 2**31))
def test_every_fact_of_a_document_is_said_in_its_text(seed: int) -> None:
    for document in fact_documents(5, NAMES, seed):
        match = re.fullmatch(r"Facts: (.+)\nText: (.+)", document)
        assert match
        facts = [fact.split(" | ") for fact in match[1].split("; ")]
        assert 1 <= len(facts) <= 4
        assert all(len(fact) == 3 for fact in facts)
        assert len({subject for subject, _, _ in facts}) == 1
        assert len({relation for _, relation, _ in facts}) == len(facts)
        said = match[2].lower()
        assert all(subject.lower() in said and value.lower() in said for subject, _, value in facts)


def test_the_same_seed_gives_the_same_documents_and_another_seed_others() -> None:
    first, again, other = (list(fact_documents(20, NAMES, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert list(fact_documents(8, NAMES, 1)) == first[:8]


def test_every_wording_names_subject_and_value() -> None:
    assert all("{s}" in wording and "{o}" in wording for *_, wordings in RELATIONS for wording in wordings)


def test_every_kind_of_subject_has_relations_enough_for_four_facts_or_all_it_has() -> None:
    assert {kind for _, kind, _, _ in RELATIONS} == set(SUBJECTS)


def test_names_are_those_inside_sentences_most_frequent_first() -> None:
    texts = ["We saw Mill Hill, and Ashford was near.", "Then to Ashford. Zeal is no name here, nor is Once."]
    texts.append("They left Mill Hill for Ashford.")
    assert names_in(texts) == ["Ashford", "Mill Hill"]
    assert names_in(texts, at_least=1) == ["Ashford", "Mill Hill", "Once"]
    assert names_in(texts, most=1) == ["Ashford"]
