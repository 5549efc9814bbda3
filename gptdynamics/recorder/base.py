"""The model that is trained: the part that is measured, and the base model that it started from."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gptdynamics.errors import SettingsError
from gptdynamics.models.base_model import BaseModel, model_revision
from gptdynamics.models.nano import MODEL_FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def measured_model(model: torch.nn.Module, precision: str) -> PreTrainedModel:
    """The causal language model within wrappers for compilation, data parallelism and adapters, without copying.

    Raises:
        SettingsError: it is not a causal language model of transformers, this process has only a part of its weights,
            or `precision` is fp32 and its weights are not.
    """
    from transformers import PreTrainedModel

    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        elif isinstance(inner, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            inner = inner.module
        else:
            break
    if hasattr(inner, "get_base_model"):
        if any(config.is_prompt_learning for config in inner.peft_config.values()):
            raise SettingsError("prompt tuning cannot be recorded: the model alone is measured. Use LoRA")
        inner = inner.get_base_model()
    if not isinstance(inner, PreTrainedModel) or inner.get_output_embeddings() is None:
        raise SettingsError(f"{type(inner).__name__} is not a causal language model of transformers. Train one")
    _refuse_parts(inner)
    dtypes = {value.dtype for value in inner.parameters() if value.dtype.is_floating_point}
    if precision == "fp32" and dtypes != {torch.float32}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise SettingsError(f'the weights are {names}: give RecordSettings(precision="bf16"), or load them as float32')
    return inner


def _refuse_parts(model: torch.nn.Module) -> None:
    """Raise SettingsError if this process has only a part of the weights, as it could not measure the model."""
    from torch.distributed.tensor import DTensor

    sharded = any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()) or any(
        isinstance(value, DTensor) or value.is_meta or hasattr(value, "ds_id") for value in model.parameters()
    )
    if sharded:
        raise SettingsError(
            "the weights are sharded over processes (FSDP, DeepSpeed, tensor parallel), and a training can be recorded "
            "only if every process has the whole model. Train on one device, or with data parallelism (DDP)"
        )


def started_from(model: PreTrainedModel, tokenizer: Any, name: str | None, resumed: str | None = None) -> BaseModel:
    """The base model of a model that is about to be trained: its name, and the revision that identifies its weights.

    Args:
        model: a result of `measured_model`.
        tokenizer: of the model.
        name: the user's name of the base model; None: the name in the model's configuration.
        resumed: the revision that was recorded before the checkpoint, if training resumes from one.

    Raises:
        SettingsError: there is no name, or the tokenizer cannot be used.
    """
    if not callable(tokenizer) or getattr(tokenizer, "eos_token_id", None) is None:
        raise SettingsError("a tokenizer with an end-of-text token is needed: give the trainer its processing_class")
    loaded = str(getattr(model.config, "_name_or_path", "") or "")
    name = name or ("nano" if loaded and Path(loaded).resolve() == MODEL_FOLDER.resolve() else loaded)
    if not name:
        raise SettingsError("the model does not say what it was loaded from: give RecordSettings(base_model=...)")
    return BaseModel(name=name, revision=_revision(model, name, resumed), model=model, tokenizer=tokenizer)


def _revision(model: PreTrainedModel, name: str, resumed: str | None) -> str:
    if name == "nano" or any(Path(name).glob("*.safetensors")):
        return model_revision(name)
    commit = getattr(model.config, "_commit_hash", None)
    return str(commit) if commit else resumed or weights_digest(model)


def weights_digest(model: torch.nn.Module, adapters: bool = False) -> str:
    """The first 12 hex digits of the SHA-256 of a model's current weights; with `adapters`, including adapters."""
    digest = hashlib.sha256()
    state = dict(model.state_dict()) if adapters else _base_state(model)
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _base_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a model without its adapters, under the names that they have in the model without adapters."""
    state = dict(model.state_dict())
    if "peft" not in sys.modules:
        return state
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in reversed(list(model.named_modules())):
        inner = {BaseTunerLayer: "base_layer", AuxiliaryTrainingWrapper: "original_module"}
        part = next((part for kind, part in inner.items() if isinstance(module, kind)), None)
        if part is None:
            continue
        prefix = f"{name}." if name else ""
        within = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
        base = f"{prefix}{part}."
        state |= {prefix + key.removeprefix(base): value for key, value in within.items() if key.startswith(base)}
    return state
