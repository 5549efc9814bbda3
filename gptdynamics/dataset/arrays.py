"""Arrays of runs, in memory or, where they are large, in a file that is mapped: only what is looked at is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np

# Arrays of more bytes are mapped.
LARGEST_HELD = 2**30


def run_array(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array to be filled run by run; a mapped one is in a file without a name, and goes with it."""
    if 4 * int(np.prod(shape)) <= LARGEST_HELD:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile(prefix="gptdynamics-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def take_runs(values: np.ndarray, which: Sequence[int]) -> np.ndarray:
    """Some runs of an array, copied one at a time."""
    taken = run_array((len(which), *values.shape[1:]))
    for place, run in enumerate(which):
        taken[place] = values[run]
    return taken
