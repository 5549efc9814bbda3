"""The card of a dataset repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hub_cards import render


def render_card(patterns: Mapping[str, Mapping[str, str]], summaries: Sequence[Mapping[str, Any]]) -> str:
    """README.md of a dataset repository.

    Args:
        patterns: for each configuration the files of each split, as a glob.
        summaries: for each config of runs its settings and counts.
    """
    return render("dataset_card.md.jinja", configs=patterns, summaries=summaries)
