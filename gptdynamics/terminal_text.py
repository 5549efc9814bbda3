"""Makes text from outside safe to print: nothing in it can control the terminal, or hide or reorder text."""

from __future__ import annotations

import unicodedata

# Control and format characters (bidi controls among them), lone surrogates, private use, line and paragraph separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
# Joiners belong to words of several scripts, and to emoji.
_NEEDED = "\u200c\u200d"
_SHOWN = {"\x07": "\\a", "\b": "\\b"}


def safe_text(text: object, one_line: bool = True) -> str:
    """The text of any value, with unsafe characters, and line ends if `one_line`, escaped as in Python."""
    return "".join(
        character if _is_safe(character) or (character == "\n" and not one_line) else _escape(character)
        for character in str(text)
    )


def _is_safe(character: str) -> bool:
    return character in _NEEDED or character == "\t" or unicodedata.category(character) not in _UNSAFE


def _escape(character: str) -> str:
    return _SHOWN.get(character) or character.encode("unicode_escape").decode("ascii")


def cut_text(text: str, limit: int = 60) -> str:
    """A text on one line of at most `limit` characters; the middle of a longer text is cut out."""
    flat = " ".join(text.split())
    if len(flat) <= limit:
        return flat
    # Two fifths of the characters are for the end, which has the target of an example.
    end = (limit - 3) * 2 // 5
    return f"{flat[: limit - 3 - end]}...{flat[len(flat) - end :]}"
