"""Ids on a command line."""

from __future__ import annotations

from gptdynamics.errors import SettingsError


def listed_ids(text: str | None) -> tuple[int, ...]:
    """Numbers separated by commas; none of None.

    Raises:
        SettingsError: it is something else, or an empty list.
    """
    if text is None:
        return ()
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError as error:
        raise SettingsError(f"{text!r} is not a list of ids such as 3,17") from error
