"""Runs one method in its environment: `python -m benchmarks.peers.one METHOD WORK OUTPUT [DEVICE]`.

OUTPUT.npz gets `effects` `[N, M]` or `[N, M, S]` (NaN for test examples that were not asked of) and, of methods that
predict changed runs, `left_out` and `reordered` `[C, M, S]`; OUTPUT.json what it cost. A method that refuses says why
in one line.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.method import CannotRunError
from benchmarks.peers.registry import METHODS
from benchmarks.peers.work import Work


def run_method(name: str, work: Work, output: Path) -> None:
    """Fit a method, ask it, and write what it says."""
    method = METHODS[name]
    count = method.tests or len(work.tests)
    asked = np.linspace(0, len(work.tests) - 1, count).round().astype(int).tolist()
    # What is imported for the first model is not counted.
    work.model()
    # On a GPU a process waits for much of the time.
    clock = time.process_time if work.device == "cpu" else time.perf_counter
    began = clock()
    fitted = method.fit(work)
    ready = clock()
    effects = fitted.ask(asked)
    done = clock()
    # One test example alone; on a GPU its share of all.
    alone = not method.tests and work.device == "cpu"
    if alone:
        fitted.ask(asked[:1])
    again = clock()
    every = np.full((len(work.rows), len(work.tests), *effects.shape[2:]), np.nan, dtype=np.float32)
    every[:, asked] = effects
    predicted = {what: fitted.predict(changed) for what, changed in work.changed.items()} if fitted.predict else {}
    once, each = method.passes(work)
    cost = {
        "packages": {each.split("==")[0]: version(each.split("==")[0]) for each in method.requirements},
        "seconds_fit": ready - began,
        "seconds_ask": done - ready,
        "seconds_next": again - done if alone else (done - ready) / count,
        "asked": count,
        "passes_fit": once,
        "passes_next": each,
    }
    if work.device != "cpu":
        cost["gpu_gib"] = torch.cuda.max_memory_reserved() / 2**30
    # The arrays last: where they are, all is there.
    output.with_suffix(".json").write_text(json.dumps(cost, indent=1))
    np.savez_compressed(output.with_suffix(".part.npz"), effects=every, **predicted)
    output.with_suffix(".part.npz").rename(output.with_suffix(".npz"))


if __name__ == "__main__":
    try:
        run_method(sys.argv[1], Work.load(Path(sys.argv[2]), *sys.argv[4:]), Path(sys.argv[3]))
    except CannotRunError as error:
        raise SystemExit(str(error)) from error
