"""What is refused of a command's words before any slow library is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptdynamics.hub.source import check_source


class OfDataset:
    """Settings with a `dataset`, and perhaps with one `config` of it or several."""

    @classmethod
    def check_given(cls, values: Mapping[str, Any]) -> None:
        """Raise GPTDynamicsError if a folder is not there, or has not begun a config; `values` are given, by name."""
        dataset, configs = values.get("dataset"), values.get("config") or ()
        if dataset is not None:
            check_source(str(dataset), (configs,) if isinstance(configs, str) else configs)
