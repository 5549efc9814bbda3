"""The copy of a base model that a run trains: all weights, or adapters on query, key and value."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Names of the query, key and value projections in GPT-NeoX, GPT-2, Llama and similar models.
QUERY_KEY_VALUE = ("query_key_value", "c_attn", "q_proj", "k_proj", "v_proj", "qkv_proj")


def trainable_copy(model: PreTrainedModel, settings: RunSettings) -> PreTrainedModel:
    """A copy of `model` to train; with `lora_rank`, only adapters on query, key and value are trainable (A.3).

    The adapters' initial values are drawn from torch's global generator: seed it before.

    Raises:
        SettingsError: `lora_rank` is set, but the model has no projections of a known name.
    """
    copied = copy.deepcopy(model)
    if not settings.lora_rank:
        return copied
    from peft import LoraConfig, inject_adapter_in_model

    names = {name.rsplit(".", 1)[-1] for name, _ in copied.named_modules()}
    targets = [name for name in QUERY_KEY_VALUE if name in names]
    if not targets:
        raise SettingsError(
            f"{settings.base}: the model has no query, key and value projections for LoRA "
            f"(none of {', '.join(QUERY_KEY_VALUE)}). Set lora_rank = 0"
        )
    adapters = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        fan_in_fan_out="c_attn" in targets,
    )
    # Keeps the model's class, so that later code can treat it as the plain model.
    return inject_adapter_in_model(adapters, copied)
