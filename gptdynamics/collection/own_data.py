"""Settings that nothing was said of, for data of any size: what fits the rows, and the usual rate of the base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gptdynamics.configs import RunSettings, config_parts
from gptdynamics.errors import SettingsError
from gptdynamics.plans import known_training, usual_rate
from gptdynamics.tasks import get_task
from gptdynamics.tasks.loading import count_rows


def fit_settings(config: str, given: Mapping[str, Any], data: Path | None) -> tuple[dict[str, Any], str | None]:
    """The settings of a config that are to be given, and a line about those that were fitted; None: none was.

    Where there are fewer rows than usual, all of them are pool or test set, and a run trains on the usual share.

    Args:
        config: `<task>_<size>`.
        given: settings that the user gave; they are never changed.
        data: folder with local rows; None: generated rows, or the Hub, whose rows are not counted.

    Raises:
        GPTDynamicsError: the task is unknown, its files cannot be read, or no learning rate is known for the config.
    """
    settings = dict(given)
    said: list[str] = []
    rate_said: list[str] = []
    usual: dict[str, Any] = {field.name: field.default for field in fields(RunSettings)}
    task_name, size = config_parts(config)
    base = str(given.get("base_model") or size)
    if "learning_rate" not in given:
        try:
            usual |= known_training(config)
        except SettingsError:
            rate = usual_rate(base)
            if rate is None:
                raise
            settings["learning_rate"] = rate
            rate_said.append(f"learning rate {rate:g}, as is usual for {base} (--learning-rate)")
    task = get_task(task_name)
    rows = {part: count_rows(task, part, data) for part in ("pool", "test")}

    def fit(name: str, most: int | None, words: str) -> int:
        value = int(given.get(name, usual[name]))
        if name not in given and most is not None and most < value:
            settings[name] = value = max(1, most)
            said.append(words.format(value))
        return value

    pool = fit("pool_size", rows["pool"], "a pool of {} (--pool)")
    share = usual["subset"] / usual["pool_size"]
    subset = fit("subset", round(share * pool), "of which a run trains on {} (--subset)")
    fit("batch_size", subset, "batches of {} (--batch-size)")
    fit("test_examples", rows["test"], "{} test examples (--test-examples)")
    return settings, f"{config}: {', '.join(said + rate_said)}" if said + rate_said else None
