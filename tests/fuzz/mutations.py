"""Seeded damage to files: of their bytes, of the values in them, and of what stands at their place."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What no field expects, as Python values, and as text that no value can be written as.
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, "", " ", "x", "0", "-1",
    "nan", "\ud800", "a\udfffb", "\0", "\u202e\x1b[31m", "x" * 5000, "../../x", "/", "loss", "0001", [], {}, [[]],
    [None], [0], ["x"], [[0], [1.5]], {"": 0}, {"x": None}, [1, [2, [3, [4]]]],
)  # fmt: skip
RAW = (
    "[" * 1500 + "]" * 1500, '{"a":' * 300 + "1" + "}" * 300, "9" * 5000, "NaN", "Infinity", "-Infinity", "1e999", "00",
    '"\\ud83d"', '"\\u0000"', "'", "tru", "",
)  # fmt: skip


@dataclass(frozen=True)
class Damaged:
    """What a file is to become.

    Attributes:
        kind: of the damage, for messages.
        content: new bytes; None: the file goes, or becomes a folder.
        folder: whether a folder stands in its place.
    """

    kind: str
    content: bytes | None
    folder: bool = False

    def apply(self, path: Path) -> None:
        """Damage the file."""
        path.unlink()
        if self.folder:
            path.mkdir()
        elif self.content is not None:
            path.write_bytes(self.content)


def restore(path: Path, content: bytes) -> None:
    """Put the sound file back."""
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def damage_bytes(rng: random.Random, content: bytes) -> Damaged:
    """Damage as of disks and transfers: bits, blocks, lengths."""
    kind = rng.choice(["bit", "bit", "byte", "truncated", "block", "zeros", "inserted", "deleted", "twice", "appended"])
    made = bytearray(content)
    start = rng.randrange(len(made)) if made else 0
    length = rng.choice([1, 2, 8, 64, 512])
    if kind == "bit" and made:
        made[start] ^= 1 << rng.randrange(8)
    elif kind == "byte" and made:
        made[start] = rng.randrange(256)
    elif kind == "truncated":
        del made[start:]
    elif kind == "block":
        made[start : start + length] = rng.randbytes(len(made[start : start + length]))
    elif kind == "zeros":
        made[start : start + length] = bytes(len(made[start : start + length]))
    elif kind == "inserted":
        made[start:start] = rng.randbytes(length)
    elif kind == "deleted":
        del made[start : start + length]
    elif kind == "twice":
        made[start:start] = made[start : start + length]
    else:
        made += rng.randbytes(length)
    return Damaged(kind, bytes(made))


def damage_place(rng: random.Random, others: Sequence[bytes]) -> Damaged:
    """Something else at the file's place."""
    kind = rng.choice(["empty", "folder", "gone", "other file"])
    if kind == "other file":
        return Damaged(kind, rng.choice(others))
    return Damaged(kind, b"" if kind == "empty" else None, kind == "folder")


def damage_tree(rng: random.Random, tree: Any, write: Callable[[Any], str]) -> Damaged:
    """A value in JSON, TOML or YAML changed, dropped, moved, or given twice.

    Args:
        rng: what is drawn from.
        tree: the values.
        write: makes text of them.
    """
    changed = json.loads(json.dumps(tree))
    places = _places(changed)
    if not places:
        return Damaged("tree", write(rng.choice(ODD_VALUES)).encode("utf-8", "surrogatepass"))
    holder, key = rng.choice(places)
    kind = rng.choice(["value", "value", "value", "raw", "dropped", "other's", "named twice", "more", "whole"])
    if kind == "whole":
        return Damaged(kind, write(rng.choice(ODD_VALUES)).encode("utf-8", "surrogatepass"))
    if kind == "dropped":
        del holder[key]
    elif kind == "other's":
        source, name = rng.choice(places)
        holder[key] = json.loads(json.dumps(source[name]))
    elif kind == "more" and isinstance(holder, dict):
        holder[rng.choice(["", "x", "\ud800", "a.b", "config"])] = rng.choice(ODD_VALUES)
    elif kind in ("raw", "named twice"):
        holder[key] = "@mark@"
        text = write(changed)
        if kind == "raw":
            text = text.replace('"@mark@"', rng.choice(RAW))
        else:
            text = text.replace('"@mark@"', '0, "x": 1, "x": 2' if "{" in text else "0\nx = 1\nx = 2")
        return Damaged(kind, text.encode("utf-8", "surrogatepass"))
    else:
        holder[key] = rng.choice(ODD_VALUES)
    return Damaged(kind, write(changed).encode("utf-8", "surrogatepass"))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every value in a tree, as what holds it and its name or number there."""
    found: list[tuple[Any, Any]] = []
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            found += [(tree, key), *_places(tree[key])]
    return found
