"""The files of a model: digests of its weights, and checks that it can be a base model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Keys of an adapter's configuration that do not change the merged weights.
_NO_NUMBERS = {"base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version"}
_POINTER = b"version https://git-lfs"


class UnusableModelError(ValueError):
    """A folder or repository cannot be a base model; the message says why and what to do."""


def weights_digest(folder: Path) -> str:
    """The first 12 hex digits of the SHA-256 of a folder's weights.

    Raises:
        UnusableModelError: it has none that can be loaded.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UnusableModelError(_without_weights(folder))
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise UnusableModelError(
                    f"{path.name} is a Git LFS pointer, because its weights were not downloaded: run git lfs pull there"
                )
            stream.seek(0)
            while block := stream.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:12]


def adapter_digest(folder: Path) -> str:
    """The first 12 hex digits of the SHA-256 of an adapter's weights and of the settings that scale them.

    Raises:
        UnusableModelError: it has no weights that can be loaded, or its configuration is damaged.
    """
    values = _adapter_values(folder / ADAPTER_CONFIG)
    # Other scales give another model with the same weights.
    text = json.dumps({name: value for name, value in values.items() if name not in _NO_NUMBERS}, sort_keys=True)
    return hashlib.sha256((weights_digest(folder) + text).encode()).hexdigest()[:12]


def _without_weights(folder: Path) -> str:
    if list(folder.glob("*.gguf")):
        return "the folder has weights as GGUF only, which are quantised: give the model that they were made from"
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt*")):
        return (
            "the folder has no *.safetensors, and pickle files are not opened: if you trust it, load it with "
            "transformers and save it with save_pretrained"
        )
    return "the folder has no *.safetensors"


def check_config(config: Any) -> None:
    """Raise an error for models that can be loaded but not trained and measured.

    Args:
        config: of transformers.

    Raises:
        UnusableModelError: its weights are quantised, or it is an encoder-decoder.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        values = quantised if isinstance(quantised, dict) else quantised.to_dict()
        raise UnusableModelError(
            f"its weights are quantised ({values.get('quant_method', 'unknown')}), which cannot be trained: give the "
            "checkpoint that they were made from"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UnusableModelError(
            f"{config.model_type} is an encoder-decoder: give a causal language model (decoder only)"
        )


def adapter_base(config_file: Path) -> tuple[str, str | None]:
    """The base model that an adapter of peft names, and its revision.

    Args:
        config_file: the adapter's `adapter_config.json`.

    Raises:
        UnusableModelError: it is damaged, or names none.
    """
    values = _adapter_values(config_file)
    base = values.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UnusableModelError(f"its {ADAPTER_CONFIG} names no base model: write base_model_name_or_path there")
    relative = config_file.parent / base
    # A relative path may be relative to the adapter's folder.
    source = str(relative) if not Path(base).exists() and relative.is_dir() else base
    revision = values.get("revision")
    return source, revision if isinstance(revision, str) else None


def _adapter_values(config_file: Path) -> dict[str, Any]:
    try:
        values = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableModelError(f"its {ADAPTER_CONFIG} is damaged ({type(error).__name__}: {error})") from error
    if not isinstance(values, dict):
        raise UnusableModelError(f"its {ADAPTER_CONFIG} is damaged: it is not a JSON object")
    return values
