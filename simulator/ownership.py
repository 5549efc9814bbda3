"""Which folders training and use cases may write to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gptdynamics.atomic import remove_leftovers
from gptdynamics.dataset.ownership import check_folder, holds_dataset

WAY_OUT = "--output"
# What is in a folder while, or after, markov is trained into it.
_TRAINING = {"checkpoints", "logs"}
# Trainings that a use case keeps from its beginning on.
_NAMED_BY_DIGEST = re.compile(r"[0-9a-f]{8,}\.safetensors")


def prepare_model_folder(folder: Path) -> None:
    """See that a simulator may be written to a folder: it is new or empty, or holds a simulator or its training.

    What a killed command left behind in it is removed.

    Raises:
        DataError: it holds something else, for example another model.
    """
    check_folder(folder, _holds_simulator, "simulator", WAY_OUT)
    remove_leftovers(folder)


def prepare_results_folder(folder: Path) -> None:
    """See that results may be written to a folder: it is new or empty, or holds results or their trainings.

    What a killed command left behind in it is removed.

    Raises:
        DataError: it holds something else.
    """
    check_folder(folder, _holds_results, "results of gptfluence", WAY_OUT)
    remove_leftovers(folder)


def _holds_simulator(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if names <= _TRAINING or _object(folder / "config.json").get("model_type") == "gptfluence":
        return True
    # Its configuration may be damaged.
    return {"settings", "fitted"} <= _object(folder / "training.json").keys()


def _holds_results(folder: Path) -> bool:
    # Pages of a quickstart lie beside the models and the runs they are of.
    if holds_dataset(folder / "dynamics") or (folder / "suspects.jsonl").is_file():
        return True
    if any(_NAMED_BY_DIGEST.fullmatch(path.name) for path in folder.glob("trials/*.safetensors")):
        return True
    return any({"experiment", "command"} <= _object(path).keys() for path in folder.glob("*.json"))


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
