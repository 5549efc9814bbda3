"""Arrays and plain values in one safetensors file, with a digest to detect damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.atomic import write_atomically
from gptdynamics.errors import DataError
from gptdynamics.parsing import parse_object

_DIGEST = "digest"


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any], name: str) -> None:
    """Write arrays, and plain values as JSON under `name` in the file's metadata, atomically.

    Raises DataError if the file cannot be written.
    """
    from safetensors.numpy import save_file

    contiguous = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    text = json.dumps(dict(plain))
    metadata = {name: text, _DIGEST: _digest(contiguous, text)}
    write_atomically(path, lambda target: save_file(contiguous, target, metadata))


def read_tensors(path: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the plain values of such a file; raises DataError if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: it is damaged ({reason})") from error
    text = metadata.get(name)
    if text is None:
        raise DataError(f"{path}: it is damaged (its metadata lack {name})")
    if metadata.get(_DIGEST, _digest(arrays, text)) != _digest(arrays, text):
        raise DataError(f"{path}: it is damaged (its content does not match its digest)")
    return arrays, parse_object(text, f"{path}: {name}")


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
