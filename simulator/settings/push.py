"""Settings of `push`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gptdynamics.options import CommandLine
from simulator.settings.of_dataset import OfDataset


@dataclass(frozen=True)
class PushModelSettings(OfDataset):
    """Which simulator is published, and where.

    Attributes:
        model: folder of a simulator.
        repo: model repository <owner>/<name>; made if it is not there.
        private: make the repository a private one.
        evaluation: what `evaluate --json` wrote: its figures go on the card.
        dataset: Hub id of the runs.
        space: also publish its explorer as this static Space.
        no_texts: with --space: leave out prompts and targets, but for labels.
    """

    model: Annotated[Path, CommandLine(positional=True)]
    repo: Annotated[str, CommandLine(positional=True)]
    private: bool = False
    evaluation: Path | None = None
    dataset: Annotated[str | None, CommandLine(default="that trained on, if it was a Hub id")] = None
    space: str | None = None
    no_texts: bool = False
