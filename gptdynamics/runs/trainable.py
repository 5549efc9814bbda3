"""The copy of a base model that a run trains: all weights, or adapters on query, key and value."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What query, key and value projections are called in GPT-NeoX, GPT-2, and Llama and its kin.
QUERY_KEY_VALUE = ("query_key_value", "c_attn", "q_proj", "k_proj", "v_proj", "qkv_proj")


def trainable_copy(model: PreTrainedModel, settings: RunSettings) -> PreTrainedModel:
    """A copy of `model` to train; with `lora_rank`, only adapters on query, key and value are trainable (A.3).

    The adapters' first values are drawn from torch's global generator: seed it before.

    Raises:
        SettingsError: adapters are asked for, and the model has no projections of a known name.
    """
    copied = copy.deepcopy(model)
    if not settings.lora_rank:
        return copied
    from peft import LoraConfig, inject_adapter_in_model

    names = {name.rsplit(".", 1)[-1] for name, _ in copied.named_modules()}
    targets = [name for name in QUERY_KEY_VALUE if name in names]
    if not targets:
        raise SettingsError(
            f"{settings.base}: no query, key and value projections for LoRA "
            f"(none of {', '.join(QUERY_KEY_VALUE)}); give lora_rank = 0"
        )
    adapters = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        fan_in_fan_out="c_attn" in targets,
    )
    # Keeps the model's class, so that everything after this treats it as the plain model it was.
    return inject_adapter_in_model(adapters, copied)
