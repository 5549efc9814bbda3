"""What is refused of a command's words before any slow library is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptdynamics.errors import DataError
from gptdynamics.hub.source import SHORT_NAME, check_source, is_hub_id, source_of


class OfDataset:
    """Settings with a `dataset`, and perhaps with a `config`, a `metric` and a `model`, or several of each."""

    @classmethod
    def check_options(cls, values: Mapping[str, Any]) -> None:
        """Raise GPTDynamicsError if a folder is not there, or has not what is named of it; `values` are given, by name.

        What only the Hub can say is left to the work.
        """
        dataset, configs, metrics = str(values.get("dataset") or ""), _all(values, "config"), _all(values, "metric")
        if dataset:
            check_source(dataset, configs)
        models = (*_all(values, "model"), *_all(values, "models"))
        for model in models:
            check_simulator_place(str(model))
        if len(metrics) == 1 and len(configs) < 2 and not models and _is_local(dataset, configs):
            from gptdynamics.dataset.reading import check_metric, only_config

            config = configs[0] if configs else only_config(dataset)
            check_metric(dataset, config, metrics[0])


def check_simulator_place(model: str) -> None:
    """See by names of files alone that there may be a simulator; Hub ids pass.

    Raises:
        DataError: there is no such folder, or it has no model in it.
    """
    if not Path(model).exists() and not is_hub_id(model):
        raise DataError(f"{model}: no such folder with a simulator; train one with gptfluence train, or give a Hub id")
    if Path(model).exists() and not (Path(model) / "config.json").is_file():
        raise DataError(f"{model}: not a folder with a GPTfluence simulator (it has no config.json)")


def _is_local(dataset: str, configs: tuple[str, ...]) -> bool:
    if dataset == SHORT_NAME and configs:
        dataset = source_of(configs[0])
    return bool(dataset) and Path(dataset).is_dir()


def _all(values: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    value = values.get(name) or ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)
