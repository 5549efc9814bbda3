"""Encoder vectors kept on disk, each under what its example says.

A folder for each encoder holds parts of at most `PART` rows, a key and a vector each. Parts are written whole, under
the name of what is in them, and never changed: any number of processes may read and write at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gptdynamics.atomic import remove_leftovers, write_atomically
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from simulator.encoders.encoder import Encoder

# Rows encoded between two writes: what an interrupted encoding loses at most.
PART = 256
_KEY = "S32"


def _cache_folder() -> Path:
    root = os.environ.get("GPTDYNAMICS_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "gptdynamics"


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def encode_cached(
    encoder: Encoder, examples: Sequence[Example], on_part: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Encode what the same encoder was not asked before, and read the rest: `[examples, width]` float32.

    An example is known by its task, prompt and target. The cache is in `$GPTDYNAMICS_CACHE`, by default
    `~/.cache/gptdynamics`.

    Args:
        encoder: what encodes.
        examples: with texts.
        on_part: called after every `PART` examples, and after the last ones.

    Raises:
        DataError: an example's texts are withheld, or the cache cannot be written.
    """
    for example in examples:
        if example.withheld:
            raise DataError(
                f"{example.task} example {example.id} has no text to encode: this release leaves texts out. Fill them "
                "in from the rows of the task; index vectors need none, nor do gradient vectors that the release has"
            )
    keys = [_digest([example.task, example.prompt, example.target]).encode() for example in examples]
    folder = _cache_folder() / "encodings" / _digest(encoder.describe())
    known = _read(folder, set(keys))
    for begin in range(0, len(keys), PART):
        missing = {
            key: example
            for key, example in zip(keys[begin : begin + PART], examples[begin : begin + PART], strict=True)
            if key not in known
        }
        if missing:
            vectors = encoder.encode(list(missing.values())).astype(np.float32)
            _write(folder, list(missing), vectors)
            known.update(zip(missing, vectors, strict=True))
        on_part()
    return np.stack([known[key] for key in keys])


def _read(folder: Path, wanted: set[bytes]) -> dict[bytes, np.ndarray]:
    """The vectors of these keys, as far as they are there; a damaged part is removed."""
    found: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.npy")):
        if len(found) == len(wanted):
            break
        try:
            rows = np.lib.format.open_memmap(path, mode="r")
            keys, sums, vectors = rows["key"].tolist(), rows["sum"].tolist(), rows["vector"]
        except FileNotFoundError:
            continue
        except Exception:  # numpy reads a damaged header as Python code, which fails in many ways
            if path.is_file():
                path.unlink(missing_ok=True)
            continue
        for at, key in enumerate(keys):
            if key in wanted and key not in found:
                vector = np.array(vectors[at])
                # What was damaged on disk is encoded again.
                if zlib.crc32(vector.tobytes()) == sums[at]:
                    found[key] = vector
    return found


def _write(folder: Path, keys: list[bytes], vectors: np.ndarray) -> None:
    rows = np.empty(len(keys), dtype=[("key", _KEY), ("sum", np.uint32), ("vector", np.float32, vectors.shape[1:])])
    rows["key"], rows["vector"] = keys, vectors
    rows["sum"] = [zlib.crc32(vector.tobytes()) for vector in vectors]

    def write(target: Path) -> None:
        with target.open("wb") as stream:
            np.save(stream, rows, allow_pickle=False)

    remove_leftovers(folder)
    write_atomically(folder / f"{_digest([key.decode() for key in keys])}.npy", write)
