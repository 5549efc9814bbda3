"""The card of a dataset repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hub_cards import render


def render_card(splits: Mapping[str, Sequence[str]], summaries: Sequence[Mapping[str, Any]]) -> str:
    """README.md of a dataset repository.

    Args:
        splits: for each configuration the splits that have files.
        summaries: for each config of runs its settings and counts.
    """
    return render("dataset_card.md.jinja", configs=splits, summaries=summaries)
