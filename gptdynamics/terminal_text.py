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


def cut_text(text: str, most: int = 60) -> str:
    """A text on one line, of at most so many characters; a longer one loses its middle, so that both ends are seen."""
    flat = " ".join(text.split())
    if len(flat) <= most:
        return flat
    # The end of a prompt with its target says more than one might think: two fifths of the room.
    end = (most - 3) * 2 // 5
    return f"{flat[: most - 3 - end]}...{flat[len(flat) - end :]}"
