"""Training in several processes: each has only its own batches, and the main process measures and writes."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist

from gptdynamics.errors import SettingsError


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_main() -> bool:
    """Whether this is the process that measures and writes."""
    return not is_distributed() or dist.get_rank() == 0


def gather_ids(ids: list[int]) -> list[int]:
    """The ids of all processes' parts of a batch, in the order of the processes. Every process must call it."""
    if not is_distributed():
        return ids
    parts: list[list[int] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, ids)
    return [row_id for part in parts for row_id in part or []]


def in_main(action: Callable[[], None]) -> None:
    """Do something in the main process. An error there is raised in all processes, so that none waits forever.

    Raises:
        Exception: raised by `action`; other processes raise a `SettingsError` with its message.
    """
    problem: Exception | None = None
    if is_main():
        try:
            action()
        except Exception as error:
            problem = error
    if is_distributed():
        message = [None if problem is None else str(problem)]
        dist.broadcast_object_list(message, src=0)
        if problem is None and message[0] is not None:
            raise SettingsError(message[0])
    if problem is not None:
        raise problem
