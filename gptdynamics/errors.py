"""The exceptions of both packages. A message says what is wrong, where, and what to do."""

from __future__ import annotations


class GPTDynamicsError(Exception):
    """Base of every error that a user can cause and mend."""


class SettingsError(GPTDynamicsError):
    """A setting that is unknown, out of range, or differs from what a folder was made with."""


class DataError(GPTDynamicsError):
    """A row, file or folder that is missing, damaged or does not fit."""


class DivergedRunError(GPTDynamicsError):
    """A run whose loss became infinite or undefined."""
