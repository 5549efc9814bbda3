"""What can go wrong with the files of a dataset folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from gptdynamics.atomic import write_text
from gptdynamics.dataset.schema import read_parquet, write_parquet

Edit = Callable[[list[Any]], list[Any]]

RUN, ROW = "data/rte_tiny/test-0004.parquet", "data/rte_tiny_runs/test-0004.parquet"
OTHER_RUN, OTHER_ROW = "data/rte_tiny/train-0001.parquet", "data/rte_tiny_runs/train-0001.parquet"
TEXTS, MIXED = "data/webnlg_tiny/train-0001.parquet", "data/flan_tiny/test-0004.parquet"
PRODUCTS, VECTORS = "data/flan_tiny_gradients/test-0004.parquet", "data/rte_tiny_gradients/base.parquet"
POOL, TEST = "data/rte_examples/pool.parquet", "data/webnlg_examples/test.parquet"
MANIFEST = "manifests/rte_tiny.json"


def column(name: str, edit: Edit) -> Callable[[Path], None]:
    """Damage: a column's values are edited, the file stays a sound Parquet file of the same schema."""

    def damage(path: Path) -> None:
        table = read_parquet(path)
        values = pa.array(edit(table[name].to_pylist()), table.schema.field(name).type)
        write_parquet(table.set_column(table.schema.names.index(name), name, values), path)

    return damage


def at(place: int, value: Any) -> Edit:
    """The value at a place becomes another."""
    return lambda values: [*values[:place], value, *values[place + 1 :]]


def inside(row: int, place: int, value: Any) -> Edit:
    """A number in the list of a row becomes another."""

    def edit(values: list[Any]) -> list[Any]:
        values[row][place] = value
        return values

    return edit


def rows(edit: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Damage: the whole table becomes another."""
    return lambda path: write_parquet(edit(read_parquet(path)), path)


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def write(text: str) -> Callable[[Path], None]:
    return lambda path: write_text(path, text)


def manifest(**changes: Any) -> Callable[[Path], None]:
    """Damage: entries of a manifest, or of its settings, become others."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            (content["settings"] if name in content["settings"] else content)[name] = value
        write_text(path, json.dumps(content))

    return damage


def replace(old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        write_text(path, text.replace(old, new))

    return damage


def same_batches_swapped(values: list[Any]) -> list[Any]:
    return [[values[0][1], values[0][0], *values[0][2:]]]


class Case(NamedTuple):
    """A damaged file, and the fault that must be named for it: in this file, there, like this."""

    folder: str
    file: str
    damage: Callable[[Path], None]
    where: str
    what: str
    named: str | None = None
    unlisted: str | None = None

    @property
    def faults(self) -> list[tuple[str, str]]:
        """File and place of every fault; the card, too, where the damage leaves `unlisted` other than it says."""
        card = [("README.md", f"configuration {self.unlisted}")] if self.unlisted else []
        return [(self.named or self.file, self.where), *card]
