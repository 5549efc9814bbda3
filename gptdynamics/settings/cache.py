"""Settings of `gptdynamics cache`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gptdynamics.options import CommandLine


@dataclass(frozen=True)
class CacheSettings:
    """What is listed or cleared.

    Attributes:
        kind: only these kinds. Default: all kinds, and folders of earlier versions.
        clear: remove them; they are computed again when they are needed.
        yes: do not ask for confirmation.
    """

    kind: Annotated[tuple[str, ...], CommandLine(positional=True)] = ()
    clear: bool = False
    yes: bool = False
