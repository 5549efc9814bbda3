"""The exceptions of both packages. A message says what is wrong, where, and what to do."""

from __future__ import annotations


class GPTDynamicsError(Exception):
    """Base class of every error that a user can cause and correct."""


class SettingsError(GPTDynamicsError):
    """A setting is unknown, out of range, or differs from those of a folder."""


class DataError(GPTDynamicsError):
    """A row, file or folder is missing, damaged or inconsistent."""


class DivergedRunError(GPTDynamicsError):
    """A run's loss became infinite or undefined."""
