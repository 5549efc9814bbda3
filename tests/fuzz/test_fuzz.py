"""Every reader of data from outside, on damaged data: it raises our errors only, in one line, or reads what was there.

`GPTDYNAMICS_FUZZ_INPUTS` and `GPTDYNAMICS_FUZZ_SEED` make it longer and other; `make fuzz` does.
"""

from __future__ import annotations

import os
import random
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gptdynamics.errors import GPTDynamicsError
from tests.fuzz.mutations import Damaged, damage_bytes, damage_place, restore
from tests.fuzz.readers import Reader, fingerprint, readers

INPUTS = int(os.environ.get("GPTDYNAMICS_FUZZ_INPUTS", "500"))
SEED = int(os.environ.get("GPTDYNAMICS_FUZZ_SEED", "0"))
# A reader that takes longer on one damaged file hangs.
MOST_SECONDS = 20


class _HangError(BaseException):
    """A reader took too long."""


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _problem(reader: Reader, damaged: Damaged, sound: str) -> str | None:
    """What a reader does wrong with a file as it is now."""
    try:
        with _time_limit(), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = fingerprint(reader.read())
    except GPTDynamicsError as error:
        message = str(error)
        return f"its message has several lines: {message!r}" if "\n" in message else None
    except _HangError:
        return f"it takes more than {MOST_SECONDS} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    byte_damage = damaged.kind in ("bit", "byte", "truncated", "block", "zeros", "inserted", "deleted", "twice")
    if found != sound and ((reader.exact and byte_damage) or (reader.own and damaged.kind == "other file")):
        return "it reads something else, and says nothing"
    return None


def test_damaged_data_is_noticed_or_harmless(
    dataset: Path,
    model_folder: Path,
    checkpoints: Path,
    texts: Path,
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (dataset / "sound.md").write_text((dataset / "README.md").read_text())
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path))
    every = readers(dataset, model_folder, checkpoints, texts, release)
    sound = {reader.name: fingerprint(reader.read()) for reader in every}
    contents = {path: path.read_bytes() for reader in every for path in reader.files}
    names = [reader for reader in every for _ in range(reader.share)]
    problems: list[str] = []
    for number in range(INPUTS):
        rng = random.Random(f"{SEED}/{number}")
        reader = rng.choice(names)
        path = rng.choice(reader.files)
        how = rng.random()
        if how < 0.45 and reader.name != "task file":
            damaged = damage_bytes(rng, contents[path])
        elif how < 0.9:
            damaged = reader.damage(rng, contents[path])
        else:
            # Not the same bytes again, and no code.
            others = [each for at, each in contents.items() if at != path and at.suffix != ".py"]
            damaged = damage_place(rng, others)
        damaged.apply(path)
        try:
            problem = _problem(reader, damaged, sound[reader.name])
        finally:
            restore(path, contents[path])
        if problem is not None:
            problems.append(f"input {SEED}/{number}: {reader.name}, {path.name}, {damaged.kind}: {problem}")
    assert not problems, f"{len(problems)} problems\n" + "\n".join(problems[:40])
    for reader in every:
        assert fingerprint(reader.read()) == sound[reader.name], reader.name
