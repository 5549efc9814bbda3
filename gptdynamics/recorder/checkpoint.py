"""What a recording knows, kept in the folder of a training's checkpoint, so that it goes on where training does."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np

from gptdynamics.atomic import write_atomically
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.parsing import parse_object
from gptdynamics.recorder.recording import Partial

NAME = "gptdynamics_recording.safetensors"
_PLAIN = [field.name for field in fields(Partial) if field.name != "values"]


def save_partial(checkpoint: Path, partial: Partial) -> None:
    """Write what is known into a checkpoint's folder."""
    from safetensors.numpy import save_file

    plain = json.dumps({name: getattr(partial, name) for name in _PLAIN})
    values = {name: np.ascontiguousarray(each) for name, each in partial.values.items()}
    write_atomically(checkpoint / NAME, lambda path: save_file(values, path, metadata={"recording": plain}))


def load_partial(checkpoint: Path, updates: int) -> Partial:
    """Read what was known when a checkpoint was made.

    Args:
        checkpoint: its folder.
        updates: that training had made by then.

    Raises:
        SettingsError: nothing was recorded then.
        DataError: the file is damaged, or of another moment.
    """
    from safetensors import SafetensorError, safe_open

    path = checkpoint / NAME
    if not path.is_file():
        raise SettingsError(
            f"{checkpoint} has no recording of the {updates} updates before it: training was not recorded then. "
            "Train from the start, or resume from a checkpoint that was made with the recorder"
        )
    try:
        with safe_open(path, "np") as stored:
            plain = parse_object((stored.metadata() or {})["recording"], "recording")
            partial = Partial(**plain, values={name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118
        sound = len(partial.curriculum) == len(partial.rates) == updates or bool(partial.failure)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(f"{path}: it is damaged ({error}). Resume from another checkpoint") from error
    if not sound:
        raise DataError(f"{path}: it is not of {updates} updates. Resume from another checkpoint")
    return partial
