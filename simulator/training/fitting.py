"""The fitters of the kinds of dynamics: a new kind adds its line here."""

from __future__ import annotations

from gptdynamics.errors import SettingsError
from simulator.settings.train import TrainSettings
from simulator.training.fitter import Fitter
from simulator.training.markov_fit import MarkovFitter
from simulator.training.memory_fit import MemoryFitter
from simulator.training.table_fit import TableFitter
from simulator.training.tangent_fit import TangentFitter

FITTERS: list[type[Fitter]] = [
    MemoryFitter,
    MarkovFitter,
    TableFitter,
    TangentFitter,
]


def fitter_of(settings: TrainSettings) -> Fitter:
    """The fitter of training settings.

    Raises:
        SettingsError: as of `fitter_named`, or no fitter of the kind serves the settings.
    """
    for fitter in FITTERS:
        if fitter.serves(settings):
            return fitter()
    fitter_named(settings.dynamics)
    raise SettingsError(f"dynamics={settings.dynamics!r}: no fitter of this kind serves these settings")


def fitter_named(dynamics: str) -> type[Fitter]:
    """The first fitter of a kind of dynamics.

    Raises:
        SettingsError: there is none; the message names the kinds that can be fitted.
    """
    for fitter in FITTERS:
        if fitter.dynamics == dynamics:
            return fitter
    names = dict.fromkeys(fitter.dynamics for fitter in FITTERS)
    raise SettingsError(f"dynamics={dynamics!r} must be one of {', '.join(map(repr, names))}")
