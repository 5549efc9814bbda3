"""Settings that the user did not give, for data of any size: fitted to the number of rows and to the base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gptdynamics.configs import RunSettings, config_parts
from gptdynamics.errors import SettingsError
from gptdynamics.plans import usual_rate, usual_training
from gptdynamics.tasks import get_task
from gptdynamics.tasks.loading import count_rows


def fit_settings(config: str, given: Mapping[str, Any], data: Path | None) -> tuple[dict[str, Any], str | None]:
    """The settings of a config, and a line about those that were fitted; None if none were.

    If there are fewer rows than by default, all of them are used, and a run trains on the default share of the pool.

    Args:
        config: `<task>_<size>`.
        given: settings that the user gave; they are never changed.
        data: folder with local rows; None: generated rows, or the Hub, whose rows are not counted.

    Raises:
        GPTDynamicsError: the task is unknown, its files cannot be read, or no learning rate is known for the config.
    """
    settings = dict(given)
    fitted: list[str] = []
    rate_note: list[str] = []
    defaults: dict[str, Any] = {field.name: field.default for field in fields(RunSettings)}
    task_name, size = config_parts(config)
    base = str(given.get("base_model") or size)
    if "learning_rate" not in given:
        try:
            defaults |= usual_training(config)
        except SettingsError:
            rate = usual_rate(base)
            if rate is None:
                raise
            settings["learning_rate"] = rate
            rate_note.append(f"learning rate {rate:g}, the usual one of {base} (--learning-rate)")
    task = get_task(task_name)
    rows = {part: count_rows(task, part, data) for part in ("pool", "test")}

    def fit(name: str, available: int | None, text: str) -> int:
        value = int(given.get(name, defaults[name]))
        if name not in given and available is not None and available < value:
            settings[name] = value = max(1, available)
            fitted.append(text.format(value))
        return value

    pool = fit("pool_size", rows["pool"], "a pool of {} (--pool)")
    share = defaults["subset"] / defaults["pool_size"]
    subset = fit("subset", round(share * pool), "of which a run trains on {} (--subset)")
    fit("batch_size", subset, "batches of {} (--batch-size)")
    fit("test_examples", rows["test"], "{} test examples (--test-examples)")
    return settings, f"{config}: {', '.join(fitted + rate_note)}" if fitted + rate_note else None
