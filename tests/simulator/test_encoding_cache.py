"""What was encoded once is read again, whoever writes beside, and whatever happens to the files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from simulator.encoders import PART, encode_cached


class Counting:
    """An encoder that remembers what it was asked."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"encoder": self.name}

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        self.asked += [example.prompt for example in examples]
        return np.array([[len(example.prompt), len(example.target)] for example in examples], dtype=np.float64)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path))
    return tmp_path


PAIRS = [Example(0, "a b", " c"), Example(1, "d", " e f")]


def test_what_was_encoded_once_is_read_from_the_cache(cache: Path) -> None:
    encoder = Counting()
    first, second = encode_cached(encoder, PAIRS), encode_cached(encoder, PAIRS)
    assert encoder.asked == ["a b", "d"]
    assert first.dtype == second.dtype == np.float32
    np.testing.assert_array_equal(first, [[3, 2], [1, 4]])
    np.testing.assert_array_equal(first, second)


def test_each_example_is_encoded_once_whatever_it_comes_with(cache: Path) -> None:
    encoder = Counting()
    new = Example(7, "g h i", " j")
    for examples in (PAIRS, PAIRS[:1], PAIRS[::-1], [PAIRS[1], new, PAIRS[0], new]):
        np.testing.assert_array_equal(encode_cached(encoder, examples), Counting().encode(examples))
    assert encoder.asked == ["a b", "d", "g h i"]


def test_the_id_is_not_part_of_what_is_encoded_but_text_and_task_are(cache: Path) -> None:
    encoder = Counting()
    row = PAIRS[0]
    for other in (row, replace(row, id=99), replace(row, task="rte"), replace(row, target=" d")):
        encode_cached(encoder, [other])
    assert len(encoder.asked) == 3


def test_another_encoder_has_vectors_of_its_own(cache: Path) -> None:
    encoder, other = Counting(), Counting("other")
    for each in (encoder, other):
        encode_cached(each, PAIRS)
    assert other.asked == encoder.asked


def test_a_pool_of_ten_thousand_is_encoded_once_and_rows_added_to_it_alone(cache: Path) -> None:
    pool = [Example(at, f"prompt {at}", " yes") for at in range(10_000)]
    encoder, parts = Counting(), []
    vectors = encode_cached(encoder, pool, lambda: parts.append(len(encoder.asked)))
    assert len(encoder.asked) == 10_000
    assert parts == [*range(PART, 10_000, PART), 10_000]
    again = encode_cached(encoder, [*pool, Example(10_000, "one more", " no")])
    assert encoder.asked[10_000:] == ["one more"]
    np.testing.assert_array_equal(again[:10_000], vectors)


def test_an_interrupted_encoding_goes_on_where_it_stopped(cache: Path) -> None:
    pool = [Example(at, f"prompt {at}", " yes") for at in range(3 * PART)]
    encoder = Counting()

    def stop() -> None:
        if len(encoder.asked) == 2 * PART:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_cached(encoder, pool, stop)
    encode_cached(encoder, pool)
    assert len(encoder.asked) == 3 * PART


def test_writers_side_by_side_do_not_spoil_each_other(cache: Path) -> None:
    def work(seed: int) -> bool:
        rows = np.random.default_rng(seed).permutation(60)[:40]
        examples = [Example(0, "x" * int(row), " y") for row in rows + 1]
        return np.array_equal(encode_cached(Counting(), examples), Counting().encode(examples))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(24)))
    encoder = Counting()
    examples = [Example(0, "x" * row, " y") for row in range(1, 61)]
    np.testing.assert_array_equal(encode_cached(encoder, examples), Counting().encode(examples))
    assert not encoder.asked


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[: len(content) - 4],
        lambda content: b"no array at all",
        lambda content: b"PK\x03\x04" + content,
        lambda content: content.replace(b"'key'", b"'kex'"),
    ],
    ids=["empty", "cut in the header", "cut in the numbers", "other content", "like a zip", "other columns"],
)
def test_a_damaged_cache_file_is_made_again(cache: Path, damage: Any) -> None:
    encoder = Counting()
    wanted = encode_cached(encoder, PAIRS)
    [path] = (cache / "encodings").glob("*/*.npy")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    np.testing.assert_array_equal(encode_cached(encoder, PAIRS), wanted)
    assert len(encoder.asked) == 4
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(blocked))
    with pytest.raises(DataError, match="cannot write"):
        encode_cached(Counting(), PAIRS)


def test_withheld_texts_are_refused(cache: Path) -> None:
    with pytest.raises(DataError, match="rte example 4 has no text to encode"):
        encode_cached(Counting(), [Example(4, "", "", task="rte")])
