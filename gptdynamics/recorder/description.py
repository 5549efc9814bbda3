"""The row that describes a recorded run: the settings of its training."""

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
from gptdynamics.recorder.plain import plain_number, plain_values
from gptdynamics.runs import Run

# The TrainingArguments that affect the training; without paths, logging and saving.
_ARGUMENTS = (
    "adafactor adam_beta1 adam_beta2 adam_epsilon average_tokens_across_devices bf16 data_seed dataloader_drop_last "
    "fp16 full_determinism gradient_accumulation_steps gradient_checkpointing label_smoothing_factor learning_rate "
    "lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps neftune_noise_alpha num_train_epochs optim "
    "optim_args per_device_train_batch_size seed train_sampling_strategy warmup_ratio warmup_steps weight_decay "
    "assistant_only_loss completion_only_loss loss_type max_length packing shuffle_dataset truncation_mode"
).split()
_LIBRARIES = ("accelerate", "trl")


def optimizer_columns(optimizer: Any) -> dict[str, Any]:
    """Columns about the optimiser: its name and, if it has them, weight decay, betas and epsilon."""
    inner = getattr(optimizer, "optimizer", optimizer)
    groups: list[dict[str, Any]] = inner.param_groups
    betas = groups[0].get("betas")
    betas = betas if isinstance(betas, tuple | list) and len(betas) >= 2 else (None, None)
    decays = [decay for group in groups if (decay := plain_number(group.get("weight_decay"))) is not None]
    return {
        "optimizer": type(inner).__name__.lower(),
        # The largest, because biases and norms often have none.
        "weight_decay": max(decays, default=None),
        "beta1": plain_number(betas[0]),
        "beta2": plain_number(betas[1]),
        "epsilon": plain_number(groups[0].get("eps")),
    }


def optimizer_defaults(optimizer: Any) -> dict[str, Any]:
    """Settings of an optimiser, as plain values."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return plain_values({name: value for name, value in getattr(inner, "defaults", {}).items() if value is not None})


def learning_rate(optimizer: Any) -> float | None:
    """The learning rate of an optimiser's next update, from its first group; None if it cannot be read.

    For an Adafactor that sets its own rates, it is the factor that all weights share.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    group = inner.param_groups[0]
    rate = plain_number(group.get("lr"))
    if rate is None and group.get("relative_step"):
        state: Any = next(iter(inner.state.values()), {})
        update = int(state.get("step", 0)) + 1
        limit = 1e-6 * update if group.get("warmup_init") else 1e-2
        rate = min(limit, 1.0 / update**0.5)
    return rate if rate is not None and rate >= 0 else None


def adapter_columns(model: torch.nn.Module) -> dict[str, Any]:
    """Columns about LoRA; rank 0 if all weights are trained."""
    configs = list(getattr(model, "peft_config", {}).values())
    rank = plain_number(getattr(configs[0], "r", None)) if configs else 0
    columns: dict[str, Any] = {"lora_rank": None if rank is None else int(rank)}
    if rank:
        alpha, dropout = (plain_number(getattr(configs[0], name, None)) for name in ("lora_alpha", "lora_dropout"))
        columns |= {"lora_alpha": None if alpha is None else int(alpha), "lora_dropout": dropout}
    return columns


def adapter_hyperparameters(model: torch.nn.Module) -> dict[str, Any]:
    """Settings of adapters by their names, as plain values."""
    configs = dict(getattr(model, "peft_config", {}))
    # The path of the base model is private.
    settings = {
        name: {key: value for key, value in config.to_dict().items() if key != "base_model_name_or_path"}
        for name, config in configs.items()
    }
    return {"adapters": plain_values(settings)} if configs else {}


def trainer_columns(arguments: Any) -> dict[str, Any]:
    """Columns about a `TrainingArguments`."""
    schedule = getattr(arguments.lr_scheduler_type, "value", str(arguments.lr_scheduler_type))
    whole_epochs = arguments.max_steps <= 0 and float(arguments.num_train_epochs).is_integer()
    return {
        "seed": arguments.seed,
        "schedule": f"{schedule} after warm-up" if arguments.get_warmup_steps(1000) else schedule,
        "epochs": int(arguments.num_train_epochs) if whole_epochs else None,
    }


def trainer_hyperparameters(arguments: Any) -> dict[str, Any]:
    """Settings of a `TrainingArguments` other than None, as plain values."""
    values = {name: value for name in _ARGUMENTS if (value := getattr(arguments, name, None)) is not None}
    return plain_values(values) | {"processes": arguments.world_size, "devices_per_process": max(1, arguments.n_gpu)}


def run_table(
    config: str,
    scenario: str,
    recorded: Recorded,
    base: tuple[str, str],
    run: Run,
    columns: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
) -> pa.Table:
    """The row of a recorded run; unknown values are null.

    Args:
        config, scenario: of the run.
        recorded: settings that the config's runs share.
        base: name and revision of the base model.
        run: the recorded run.
        columns: settings of the training that have columns, by column.
        hyperparameters: its other settings.
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
        "scenario": scenario,
        "index": run_parts(run.name).index,
        "base_model": base[0],
        "base_revision": base[1],
        "curriculum": run.curriculum,
        "learning_rate": run.learning_rate,
        "peak_learning_rate": max(run.learning_rate),
        "batch_size": max(sizes, key=sizes.count),
        "subset": len({number for batch in run.curriculum for number in batch}),
        "gradients": "none",
        "versions": library_versions(_LIBRARIES),
        "hyperparameters": json.dumps(plain_values(hyperparameters), sort_keys=True),
    }
    return pa.Table.from_pylist([row], schema=RECORDED_RUN_SCHEMA)
