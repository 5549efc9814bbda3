"""Settings of `gptdynamics cache`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gptdynamics.options import CommandLine


@dataclass(frozen=True)
class CacheSettings:
    """What is listed or cleared.

    Attributes:
        kind: only these kinds. Default: all, and folders that earlier versions left.
        clear: remove them; what is needed again is made again.
        yes: do not ask first.
    """

    kind: Annotated[tuple[str, ...], CommandLine(positional=True)] = ()
    clear: bool = False
    yes: bool = False
