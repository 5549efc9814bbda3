"""What a recording knows, kept in the folder of a training's checkpoint, so that it goes on where training does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.recorder.recording import Partial
from gptdynamics.tensor_files import read_tensors, write_tensors

NAME = "gptdynamics_recording.safetensors"
_PLAIN = [field.name for field in fields(Partial) if field.name != "values"]


def save_partial(checkpoint: Path, partial: Partial) -> None:
    """Write what is known into a checkpoint's folder."""
    plain = {name: getattr(partial, name) for name in _PLAIN}
    write_tensors(checkpoint / NAME, partial.values, plain, "recording")


def load_partial(checkpoint: Path, updates: int) -> Partial:
    """Read what was known when a checkpoint was made.

    Args:
        checkpoint: its folder.
        updates: that training had made by then.

    Raises:
        SettingsError: nothing was recorded then.
        DataError: the file is damaged, or of another moment.
    """
    path = checkpoint / NAME
    if not path.is_file():
        raise SettingsError(
            f"{checkpoint} has no recording of the {updates} updates before it: training was not recorded then. "
            "Train from the start, or resume from a checkpoint that was made with the recorder"
        )
    try:
        values, plain = read_tensors(path, "recording")
        partial = Partial(**plain, values=values)
        sound = len(partial.curriculum) == len(partial.rates) == updates or bool(partial.failure)
    except (TypeError, DataError) as error:
        raise DataError(f"{path}: it is damaged ({error}). Resume from another checkpoint") from error
    if not sound:
        raise DataError(f"{path}: it is not of {updates} updates. Resume from another checkpoint")
    return partial
