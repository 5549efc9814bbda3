"""The row that describes a recorded run: what its training was told, as far as our columns have a place for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch

from gptdynamics.configs import run_parts
from gptdynamics.dataset.recorded import Recorded
from gptdynamics.dataset.schema import RECORDED_RUN_SCHEMA
from gptdynamics.dataset.tables import library_versions
from gptdynamics.runs import Run
from gptdynamics.tasks import get_task

# Of TrainingArguments: those that what is trained depends on. Paths, logging and saving are not among them.
_ARGUMENTS = (
    "adafactor adam_beta1 adam_beta2 adam_epsilon average_tokens_across_devices bf16 data_seed dataloader_drop_last "
    "fp16 full_determinism gradient_accumulation_steps gradient_checkpointing label_smoothing_factor learning_rate "
    "lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps neftune_noise_alpha num_train_epochs optim "
    "optim_args per_device_train_batch_size seed train_sampling_strategy warmup_ratio warmup_steps weight_decay "
    "assistant_only_loss completion_only_loss loss_type max_length packing shuffle_dataset truncation_mode"
).split()
_LIBRARIES = ("accelerate", "trl")


def optimizer_columns(optimizer: Any) -> dict[str, Any]:
    """Columns that an optimiser knows: its name, and for AdamW and its kin decay, betas and epsilon."""
    inner = getattr(optimizer, "optimizer", optimizer)
    groups: list[dict[str, Any]] = inner.param_groups
    betas = groups[0].get("betas") or (None, None)
    decays = [float(group["weight_decay"]) for group in groups if "weight_decay" in group]
    return {
        "optimizer": type(inner).__name__.lower(),
        # Biases and norms are often left out of it.
        "weight_decay": max(decays, default=None),
        "beta1": betas[0],
        "beta2": betas[1],
        "epsilon": groups[0].get("eps"),
    }


def adapter_columns(model: torch.nn.Module) -> dict[str, Any]:
    """Columns about LoRA; rank 0 where all weights are trained."""
    configs = list(getattr(model, "peft_config", {}).values())
    rank = getattr(configs[0], "r", None) if configs else 0
    columns: dict[str, Any] = {"lora_rank": rank}
    if rank:
        columns |= {"lora_alpha": int(configs[0].lora_alpha), "lora_dropout": float(configs[0].lora_dropout)}
    return columns


def trainer_columns(arguments: Any) -> dict[str, Any]:
    """Columns that a `TrainingArguments` knows."""
    schedule = getattr(arguments.lr_scheduler_type, "value", str(arguments.lr_scheduler_type))
    whole = arguments.max_steps <= 0 and float(arguments.num_train_epochs).is_integer()
    return {
        "seed": arguments.seed,
        "schedule": f"{schedule} after warm-up" if arguments.get_warmup_steps(1000) else schedule,
        "epochs": int(arguments.num_train_epochs) if whole else None,
    }


def trainer_hyperparameters(arguments: Any) -> dict[str, Any]:
    """What a `TrainingArguments` says of the training, as plain values; what is left at None is left out."""
    said = arguments.to_dict()
    found = {name: said[name] for name in _ARGUMENTS if said.get(name) is not None}
    return found | {"processes": arguments.world_size, "devices_per_process": max(1, arguments.n_gpu)}


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only what JSON has a place for."""
    return {name: value for name, value in values.items() if isinstance(value, str | int | float | bool | list | tuple)}


def run_table(
    config: str,
    recorded: Recorded,
    base: tuple[str, str],
    run: Run,
    columns: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
) -> pa.Table:
    """The row of a recorded run. What nobody knows is null.

    Args:
        config: that it belongs to.
        recorded: what the config's runs share.
        base: name and revision of the base model.
        run: what was recorded.
        columns: that the training knows.
        hyperparameters: everything else that it was told; plain values.
    """
    shared = recorded.to_dict()
    task = config.rpartition("_")[0]
    sizes = [len(batch) for batch in run.curriculum]
    row: dict[str, Any] = dict.fromkeys(RECORDED_RUN_SCHEMA.names)
    row |= {name: shared[name] for name in RECORDED_RUN_SCHEMA.names if name in shared.keys() - {"seed"}}
    row |= dict(columns) | {
        "run": run.name,
        "config": config,
        "task": task,
        "scenario": get_task(task).scenario,
        "index": run_parts(run.name)[0],
        "base_model": base[0],
        "base_revision": base[1],
        "curriculum": run.curriculum,
        "learning_rate": run.learning_rate,
        "peak_learning_rate": max(run.learning_rate),
        "batch_size": max(sizes, key=sizes.count),
        "subset": len({number for batch in run.curriculum for number in batch}),
        "gradients": "none",
        "versions": library_versions(_LIBRARIES),
        "hyperparameters": json.dumps(dict(hyperparameters), sort_keys=True),
    }
    return pa.Table.from_pylist([row], schema=RECORDED_RUN_SCHEMA)
