"""The memory available on this machine."""

from __future__ import annotations

import os
from pathlib import Path

# Files of control groups of version 2 and 1: the limit, the memory in use, and statistics.
_CONTAINERS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def available_memory() -> float | None:
    """Free bytes on this machine, or in the container of this process; None if unknown."""
    amounts = [amount for amount in (_free_of_machine(), *map(_free_of_container, _CONTAINERS)) if amount is not None]
    return min(amounts, default=None)


def _free_of_machine() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration, IndexError):
        pass
    try:
        # Not Linux: all physical memory.
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return None


def _free_of_container(paths: tuple[str, str, str]) -> float | None:
    try:
        limit, used = (float(Path(path).read_text(encoding="ascii")) for path in paths[:2])
        statistics = dict(line.split()[:2] for line in Path(paths[2]).read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        # No container, or one without a limit, which says "max".
        return None
    # Inactive pages of files can be reclaimed.
    unneeded = float(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
    return max(0.0, limit - used + unneeded)
