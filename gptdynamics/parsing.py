"""Parsing of JSON and TOML from outside: damaged or hostile content raises one kind of error, which says where."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gptdynamics.errors import DataError

# Limits that no tool exceeds; parsers and printers fail on deeper nesting or longer integers.
DEEPEST = 100
_MOST_DIGITS = 400
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_BITS = 1328  # of a number of _MOST_DIGITS digits
_TOO_LONG = f"it has an integer of more than {_MOST_DIGITS} digits"


def decode(content: bytes, where: str) -> str:
    """UTF-8 as text, without a byte order mark; raises DataError, which begins with `where`, if it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = ", but UTF-16: save it as UTF-8" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start}){hint}") from error


def parse_json(text: str | bytes, where: str, what: str = "JSON") -> Any:
    """A JSON value; bytes are UTF-8. Error messages begin with `where` and say that the text is not `what`.

    Raises DataError if it is not JSON, has a name twice in one object, is nested deeper than `DEEPEST`, or has an
    integer of more than 400 digits.
    """
    if isinstance(text, bytes):
        text = decode(text, where)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
        if text.count("[") + text.count("{") > DEEPEST:
            _check_values(value)
    except RecursionError as error:
        raise DataError(f"{where}: it is nested deeper than {DEEPEST}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not {what} ({error.msg} at line {error.lineno} column {error.colno})") from error
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return value


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object; raises DataError like `parse_json`, and if the value is not an object."""
    value = parse_json(text, where, "a JSON object")
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object, but {_kind(value)}")
    return value


def read_json(path: Path) -> Any:
    """The JSON value in a file; raises DataError if it cannot be read, and like `parse_json`."""
    return parse_json(read_bytes(path), str(path))


def read_object(path: Path, remedy: str = "") -> dict[str, Any]:
    """The JSON object in a file; raises DataError, which ends with `remedy`, if there is none."""
    try:
        return parse_object(read_bytes(path), str(path))
    except DataError as error:
        raise DataError(f"{error}. {remedy}" if remedy else str(error)) from error


def read_bytes(path: Path) -> bytes:
    """The content of a file; raises DataError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def parse_toml(text: str | bytes, where: str) -> dict[str, Any]:
    """The tables of a TOML file; bytes are UTF-8, and `where` is the file, for the message.

    Raises DataError if it is not TOML, is nested too deeply, or has an integer of more than 400 digits.
    """
    try:
        if isinstance(text, bytes):
            text = decode(text, "")
        tables = tomllib.loads(text)
        _check_values(tables)
    except (tomllib.TOMLDecodeError, DataError) as error:
        raise DataError(f"{where}: not a TOML file ({str(error).removeprefix(': ')})") from error
    except RecursionError as error:
        raise DataError(f"{where}: it is nested deeper than {DEEPEST}") from error
    except ValueError as error:
        # Python itself limits the digits of integers.
        raise DataError(f"{where}: {_TOO_LONG if 'digits' in str(error) else error}") from error
    return tables


def replace_surrogates(value: Any) -> tuple[Any, int]:
    """A value of texts, lists and objects with U+FFFD in place of unpaired surrogates, and their number.

    JSON can escape an unpaired surrogate, which UTF-8 cannot hold; texts cut in the middle of an emoji often have one.
    """
    if isinstance(value, str):
        return _SURROGATE.subn("\ufffd", value)
    if isinstance(value, dict):
        names, values = replace_surrogates(list(value)), replace_surrogates(list(value.values()))
        return dict(zip(names[0], values[0], strict=True)), names[1] + values[1]
    if isinstance(value, list | tuple):
        parts = [replace_surrogates(item) for item in value]
        return type(value)(part for part, _ in parts), sum(count for _, count in parts)
    return value, 0


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(value), "a number")


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{name!r} occurs twice in one object")
        content[name] = value
    return content


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(_TOO_LONG)
    return int(digits)


def _check_values(value: Any) -> None:
    """Raise RecursionError for values nested too deeply, ValueError for integers that are too long to print."""
    level, depth = [value], 0
    while level:
        inner = [
            list(element.values()) if isinstance(element, dict) else element
            for element in level
            if isinstance(element, dict | list)
        ]
        depth += bool(inner)
        if depth > DEEPEST:
            raise RecursionError
        level = [part for element in inner for part in element]
        if any(isinstance(part, int) and part.bit_length() > _MOST_BITS for part in level):
            raise ValueError(_TOO_LONG)
