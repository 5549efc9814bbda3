"""Whose rows the examples of a dataset folder are, and under which licence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gptdynamics.dataset.schema import read_parquet


@dataclass(frozen=True, order=True)
class RowsLicence:
    """What a card says about the rows of a task.

    Attributes:
        task: whose rows they are.
        source: dataset that they were taken from.
        licence: as that dataset states it.
        texts: `here`, `left out`, or `partly here`.
    """

    task: str
    source: str
    licence: str
    texts: str


def rows_licences(paths: Iterable[Path]) -> list[RowsLicence]:
    """Sources and licences of examples, in order.

    Args:
        paths: files of examples.

    Raises:
        DataError: a file is damaged.
    """
    withheld: dict[tuple[str, str, str], set[bool]] = {}
    for path in paths:
        for row in read_parquet(path, ["task", "source", "prompt"]).to_pylist():
            said = json.loads(row["source"] or "{}")
            key = (row["task"], str(said.get("dataset", "unknown")), str(said.get("licence", "unknown")))
            withheld.setdefault(key, set()).add(row["prompt"] is None)
    words = {frozenset({True}): "left out", frozenset({False}): "here", frozenset({True, False}): "partly here"}
    return sorted(RowsLicence(*key, words[frozenset(states)]) for key, states in withheld.items())
