"""The two formats in which Xet clients send contents: xorbs hold chunks of data, shards say which chunks make a file.

Both are described in the specification of the Xet protocol: https://huggingface.co/docs/xet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_CHUNK_HEADER = 8
_ENTRY = 48
_LAST = b"\xff" * 32
_VERIFIED, _DESCRIBED = 1 << 31, 1 << 30


@dataclass(frozen=True)
class Term:
    """A part of a file: chunks `start` to `stop` - 1 of a xorb, `size` bytes when unpacked."""

    xorb: str
    start: int
    stop: int
    size: int


@dataclass(frozen=True)
class FileEntry:
    """A file that a shard describes: its Xet hash, the SHA-256 of its content, and its parts in order."""

    hash: str
    sha256: str
    terms: tuple[Term, ...]


def hash_text(raw: bytes) -> str:
    """A hash as the protocol writes it: four little-endian numbers of 64 bits, in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def read_shard(shard: bytes) -> list[FileEntry]:
    """The files that a shard describes. Which chunks its xorbs have is read from the xorbs themselves.

    Raises:
        ValueError: the shard is cut off, or does not say enough.
    """
    at = _ENTRY
    found = []

    def entries(count: int) -> Iterator[bytes]:
        nonlocal at
        if at + count * _ENTRY > len(shard):
            raise ValueError("the shard is cut off")
        for _ in range(count):
            yield shard[at : at + _ENTRY]
            at += _ENTRY

    while True:
        (header,) = entries(1)
        if header[:32] == _LAST:
            return found
        flags, count = struct.unpack("<2I", header[32:40])
        terms = []
        for entry in entries(count):
            size, start, stop = struct.unpack("<3I", entry[36:48])
            terms.append(Term(hash_text(entry[:32]), start, stop, size))
        list(entries(count if flags & _VERIFIED else 0))
        if not flags & _DESCRIBED:
            raise ValueError("the shard does not say the SHA-256 of a file")
        (described,) = entries(1)
        found.append(FileEntry(hash_text(header[:32]), hash_text(described[:32]), tuple(terms)))


@dataclass(frozen=True)
class Xorb:
    """Chunks, packed one behind the other.

    Attributes:
        packed: as it was sent.
        offsets: where each chunk begins in `packed`, and where the last one ends.
    """

    packed: bytes
    offsets: tuple[int, ...]

    @classmethod
    def read(cls, packed: bytes) -> Xorb:
        """Find the chunks; a footer, which has another version number than a chunk, ends them."""
        offsets = [0]
        while offsets[-1] < len(packed) and packed[offsets[-1]] == 0:
            at = offsets[-1]
            offsets.append(at + _CHUNK_HEADER + int.from_bytes(packed[at + 1 : at + 4], "little"))
        if offsets[-1] > len(packed):
            raise ValueError("the last chunk is cut off")
        return cls(packed, tuple(offsets))

    def unpack(self, start: int, stop: int) -> bytes:
        """Content of chunks `start` to `stop` - 1."""
        return b"".join(self._chunk(at) for at in range(start, stop))

    def _chunk(self, number: int) -> bytes:
        at, end = self.offsets[number : number + 2]
        scheme = self.packed[at + 4]
        size = int.from_bytes(self.packed[at + 5 : at + 8], "little")
        data = self.packed[at + _CHUNK_HEADER : end]
        if scheme == 0:
            return data
        data = pa.decompress(data, size, codec="lz4", asbytes=True)
        return data if scheme == 1 else _ungroup(data)


def _ungroup(data: bytes) -> bytes:
    """Undo the grouping of bytes by their place among four, which packs numbers better."""
    out = np.empty(len(data), np.uint8)
    taken = 0
    for place in range(4):
        wanted = out[place::4]
        wanted[:] = np.frombuffer(data, np.uint8, len(wanted), taken)
        taken += len(wanted)
    return out.tobytes()
