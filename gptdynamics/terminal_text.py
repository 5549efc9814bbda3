"""Text from outside as a person may read it: nothing in it is a command to the terminal, or hides or reorders text."""

from __future__ import annotations

import unicodedata

# Control and format characters (bidi controls among them), lone surrogates, private use, line and paragraph separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
# Joiners belong to words of several scripts, and to emoji.
_NEEDED = "\u200c\u200d"
_SHOWN = {"\x07": "\\a", "\b": "\\b"}


def safe_text(text: object, one_line: bool = True) -> str:
    """The text of anything, with unsafe characters, and line ends if `one_line`, escaped as in Python."""
    return "".join(
        character if _is_safe(character) or (character == "\n" and not one_line) else _escape(character)
        for character in str(text)
    )


def _is_safe(character: str) -> bool:
    return character in _NEEDED or character == "\t" or unicodedata.category(character) not in _UNSAFE


def _escape(character: str) -> str:
    return _SHOWN.get(character) or character.encode("unicode_escape").decode("ascii")
