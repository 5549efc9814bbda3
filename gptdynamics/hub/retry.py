"""Trying again when somebody else came first or the Hub did not answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from gptdynamics.hub.repository import OvertakenError, UnreachableError

ATTEMPTS = 8
FIRST_PAUSE_SECONDS = 0.5

Result = TypeVar("Result")


def patiently(call: Callable[[], Result], on_wait: Callable[[str], None] = lambda reason: None) -> Result:
    """The result of a call that may be repeated; see `until_done`."""
    return until_done(lambda number: call(), on_wait)


def until_done(attempt: Callable[[int], Result], on_wait: Callable[[str], None] = lambda reason: None) -> Result:
    """The result of the first attempt that does not fail; after each the pause is twice as long.

    Args:
        attempt: given its number, from 1 on. It reads the state anew: the attempt before may have changed it.
        on_wait: called with the reason before the next attempt.

    Raises:
        UnreachableError: all attempts failed.
    """
    for number in range(1, ATTEMPTS):
        try:
            return attempt(number)
        except (OvertakenError, UnreachableError) as error:
            on_wait(str(error))
            # Two that push at once must not go on colliding.
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (number - 1) * random.uniform(0.5, 1.0))
    try:
        return attempt(ATTEMPTS)
    except (OvertakenError, UnreachableError) as error:
        raise UnreachableError(
            f"{error}, {ATTEMPTS} times. What was uploaded is kept: run the same command again to go on"
        ) from error
