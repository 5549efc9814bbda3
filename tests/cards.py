"""What every card on the Hub must be: whole, valid, with tables and a picture that can be read."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import yaml


def metadata(card: str) -> dict[str, Any]:
    """The YAML at the head of a card."""
    head, _, _ = card.removeprefix("---\n").partition("\n---\n")
    found = yaml.safe_load(head)
    assert isinstance(found, dict)
    return found


def code(card: str, language: str) -> list[str]:
    """Its blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", card, re.S)


def tables(card: str) -> list[list[list[str]]]:
    """The cells of its tables; each row has as many as its header."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", card, re.M):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert {len(row) for row in rows} == {len(rows[0])}, block
        assert set(rows[1]) == {"---"} and len(rows) > 2
        found.append([rows[0], *rows[2:]])
    return found


def check_whole(card: str, headings: list[str]) -> None:
    """No placeholder is left, no value missing, and the sections are those, in that order."""
    assert card.startswith("---\n") and card.endswith("\n")
    text = re.sub(r"```.*?```", "a block of code", card, flags=re.S)
    for left in (r"\{\{", r"\{%", r"\}\}", r"%\}", r"\bNone\b", r"\bUndefined\b", r"\bnan\b", r"\n\n\n"):
        assert not re.search(left, text), left
    assert re.findall(r"^## (.*)$", text, re.M) == headings
    assert not re.findall(r"[ \t]$", card, re.M)


def lines_of(picture: bytes | str) -> int:
    """How many lines a picture shows."""
    return len(list(ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}polyline")))
