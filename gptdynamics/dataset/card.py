"""The text of a card: its YAML, its generated part, and merging a new card with a user's changes to the old one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptdynamics.errors import DataError

CARD = "README.md"
FIGURE = "trajectories.svg"
_GENERATED = re.compile(r"<!-- gptdynamics: generated from here.*<!-- gptdynamics: generated up to here -->\n?", re.S)
# As on the Hub, the closing dashes may be the end of the file.
_YAML = re.compile(r"\A\ufeff?\s*---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.S)
# The beginning of cards by versions that did not mark the generated part.
_OLDER = re.compile(r"\s*# GPTDynamics\n\nWhat fine-tuning does to every test example: the loss")
_PLAIN = re.compile("[A-Za-z][A-Za-z _-]*")
_NOT_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def has_generated_part(card: str) -> bool:
    """Whether a card has a marked generated part."""
    return _GENERATED.search(card) is not None


def is_older_card(card: str) -> bool:
    """Whether an earlier version wrote the card, without marking the generated part."""
    head = _YAML.match(card.replace("\r\n", "\n"))
    return not has_generated_part(card) and head is not None and _OLDER.match(card, head.end()) is not None


def card_is_ours(card: str) -> bool:
    """Whether this package, in any version, has written a card or a part of it."""
    return has_generated_part(card) or is_older_card(card)


def read_card(path: Path) -> str:
    """The text of a card; empty if there is none. Raises DataError if it or its YAML cannot be read."""
    if not path.exists():
        return ""
    try:
        card = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"{path.name}: it cannot be read ({reason}). Correct it, or move it elsewhere") from error
    _split(card)
    return card


def merge_card(old: str, new: str, generated_names: Sequence[str] = ("configs",)) -> str:
    """A new card with a user's changes to the old one.

    The old text outside the generated part is kept. If the old card has no such part, all of its text is kept and the
    generated part is appended. In the YAML, generated values are replaced, tags are added, and other values are kept.

    Args:
        old: the present card.
        new: a card with a generated part.
        generated_names: names in the YAML whose values are generated.

    Raises:
        DataError: the old card's YAML cannot be read.
    """
    old_metadata, old_body = _split(old)
    new_metadata, new_body = _split(new)
    generated = _GENERATED.search(new_body)
    if generated is None:
        raise ValueError("the new card has no generated part")
    if has_generated_part(old_body):
        body = _GENERATED.sub(lambda _: generated.group(0), old_body, count=1)
    else:
        body = f"{old_body.rstrip()}\n\n{generated.group(0)}" if old_body.strip() else new_body
    kept = {name: value for name, value in old_metadata.items() if name not in generated_names}
    if kept.get("license") not in (None, new_metadata.get("license")):
        # These values describe the new card's licence, which is not used.
        new_metadata = {name: value for name, value in new_metadata.items() if not name.startswith("license_")}
    metadata = new_metadata | kept | {"tags": _tags_of(old_metadata, new_metadata)}
    if metadata == new_metadata:
        head = _YAML.match(new)
        return f"{head.group(0) if head else ''}{body}"
    import yaml

    try:
        text = _dumped(metadata)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(
            f"README.md: its YAML cannot be written ({type(error).__name__}). Correct it by hand"
        ) from error
    return f"---\n{text}---\n{body}"


def card_tags(card: str) -> list[str]:
    """The tags in a card's YAML; raises DataError if it cannot be read."""
    return _tags_of(_split(card)[0])


def _tags_of(*cards: Mapping[str, Any]) -> list[str]:
    """The tags of several cards, each once; a single text counts as a list of one."""
    tags: list[Any] = []
    for metadata in cards:
        entry = metadata.get("tags")
        tags += entry if isinstance(entry, list) else [entry]
    return list(dict.fromkeys(str(tag) for tag in tags if isinstance(tag, str | int | float)))


def _dumped(metadata: Mapping[str, Any]) -> str:
    """YAML that quotes every text which YAML 1.1 or 1.2 could read as another type."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """With quotes."""

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')

    Dumper.add_representer(str, represent)
    return yaml.dump(metadata, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100_000)


def _split(card: str) -> tuple[dict[str, Any], str]:
    """A card's YAML and its text."""
    import yaml

    card = card.replace("\r\n", "\n")
    head = _YAML.match(card)
    if head is None:
        return {}, card
    try:
        metadata = yaml.safe_load(head.group(1) or "") or {}
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
        TypeError,
    ) as error:  # malformed dates, deep nesting, unhashable keys
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"README.md: its YAML cannot be read ({line}). Correct it by hand") from error
    if not isinstance(metadata, dict):
        raise DataError("README.md: its YAML is not a mapping of names to values. Correct it by hand")
    return metadata, card[head.end() :]
