"""The files of a saved model: a folder changes whole or not at all, and weights and configuration carry one digest."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

CONFIG = "config.json"
DIGEST = "digest"
# A set of files that is complete, and only waits to be moved into place.
READY = ".new-files"
# Options of `from_pretrained` that say where files are.
_PLACE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write files into an empty folder, and move them into `folder` when all are on disk.

    If the process is killed while they are moved, `finish_writing` moves the rest. Other files in `folder` stay.

    Raises:
        OSError: there is no space, or no right; the files in `folder` are unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finish_writing(folder)
    writer = f"{os.getpid()}@{platform.node()}"
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=f".model.{writer}.", suffix=".tmp"))
    try:
        fill(staging)
        for path in staging.rglob("*"):
            if path.is_file():
                path.chmod(0o644)
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
        staging.rename(folder / READY)
        finish_writing(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def finish_writing(folder: Path) -> None:
    """Move files into place that a killed process had written in full.

    Raises:
        OSError: there is no right to.
    """
    ready = folder / READY
    if not ready.is_dir():
        return
    for path in sorted(each for each in ready.rglob("*") if each.is_file()):
        target = folder / path.relative_to(ready)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except FileNotFoundError:  # another process has moved it meanwhile
            continue
    shutil.rmtree(ready, ignore_errors=True)


def weights_name(variant: str | None = None) -> str:
    """Name of the file of weights."""
    return f"model.{variant}.safetensors" if variant else "model.safetensors"


def seal(folder: Path, variant: str | None = None) -> None:
    """Write the digest of configuration and weights into both.

    Raises:
        ValueError: weights are not finite.
    """
    config_path, weights_path = folder / CONFIG, folder / weights_name(variant)
    config = json.loads(config_path.read_text(encoding="utf-8"))
    tensors, metadata = _read_weights(weights_path)
    config[DIGEST] = digest = _digest(config, tensors)
    save_file(tensors, weights_path, metadata)
    _add_metadata(weights_path, {DIGEST: digest})
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def locate(source: str | os.PathLike, options: dict[str, Any]) -> tuple[Path, Path, str | None]:
    """Where configuration and weights of a folder or Hub id are on this machine, and of which commit of the Hub.

    Raises:
        OSError: one is missing, or cannot be downloaded.
    """
    location = {name: options[name] for name in _PLACE if options.get(name) is not None}
    config = cached_file(source, CONFIG, **location)
    commit = None if Path(source).is_dir() else extract_commit_hash(config, None)
    if commit is not None:
        # All files of one commit, even if the repository changes meanwhile.
        location["revision"] = commit
    weights = cached_file(source, weights_name(options.get("variant")), **location)
    return Path(str(config)), Path(str(weights)), commit


def check(config_path: Path, weights_path: Path, model_type: str) -> None:
    """See that configuration and weights are whole, and belong together.

    Models of earlier versions have no digest in either file, and are not compared.

    Raises:
        ValueError: they are damaged, of different savings, of another kind of model, or have weights that are not
            finite.
    """
    try:
        config = json.loads(config_path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config_path}: not JSON ({_first_line(error)})") from error
    if not isinstance(config, dict) or config.get("model_type") != model_type:
        raise ValueError(f"{config_path}: not the configuration of a model of type {model_type}")
    tensors, metadata = _read_weights(weights_path)
    carried = config.get(DIGEST), metadata.get(DIGEST)
    if carried == (None, None):
        return
    if carried[0] != carried[1]:
        raise ValueError(
            f"{config_path.name} and {weights_path.name} are of different savings of the model "
            f"(digests {_short(carried[0])} and {_short(carried[1])})"
        )
    if _digest(config, tensors) != carried[0]:
        raise ValueError(
            f"{config_path.name} or {weights_path.name} was changed after the model was saved: what is in them has "
            "another digest than they carry"
        )


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({_first_line(error)})") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
            continue
        # Where there are no residuals for bands, all of their scores are NaN.
        if not (name.endswith("band_scores") and bool(torch.isnan(tensor).all())):
            raise ValueError(f"{path}: weights {name} are not finite numbers (NaN or infinite)")
    return tensors, metadata


def _add_metadata(path: Path, extra: dict[str, str]) -> None:
    """Add to a safetensors file's metadata, in the order of their names: the library's order differs by chance."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = dict(sorted((header.pop("__metadata__", {}) | extra).items()))
    text = json.dumps({"__metadata__": metadata} | header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def _digest(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    content = {name: value for name, value in config.items() if name != DIGEST}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _short(digest: object) -> str:
    return str(digest)[:12]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
