"""The fitters of the kinds of dynamics: a new kind adds its line here."""

from __future__ import annotations

from simulator.settings.train import TrainSettings
from simulator.training.fitter import Fitter
from simulator.training.markov_fitter import MarkovFitter
from simulator.training.memory_fitter import MemoryFitter
from simulator.training.table_fitter import TableFitter

FITTERS: list[type[Fitter]] = [
    MemoryFitter,
    MarkovFitter,
    TableFitter,
]


def fitter_of(settings: TrainSettings) -> Fitter:
    """The fitter of training settings, whose dynamics are one of the kinds."""
    return next(fitter for fitter in FITTERS if fitter.serves(settings))()


def fitter_named(dynamics: str) -> type[Fitter]:
    """The first fitter of a kind of dynamics, by its name."""
    return next(fitter for fitter in FITTERS if fitter.dynamics == dynamics)
