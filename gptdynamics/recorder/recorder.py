"""What both recorders show of the run that they record: its name, what became of it, and a line on it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptdynamics.recorder.recording import Recording


def recording_line(recording: Recording) -> str:
    """What is recorded, where, and what comes next, in a line."""
    about = f"{recording.config} in {recording.folder.root}"
    tests = f"{len(recording.examples.test)} test examples"
    if not recording.begun:
        return f"a recording of {about} ({len(recording.examples.pool)} pool rows, {tests}) that has not begun"
    kernels = f", kernels at {len(recording.kernels.checkpoints)} steps" if recording.kernels else ""
    measured = f"{tests} at {len(recording.measurements.step)} steps{kernels}"
    what = f"run {recording.run} of {about}: {len(recording.curriculum)} updates, {measured}"
    if recording.failure is not None:
        return f"{what}; failed: {recording.failure}"
    if not recording.written:
        return f"{what}; not finished"
    ask = f"gptfluence influence {shlex.quote(str(recording.folder.root))}"
    return f"recorded {what}. Next: {ask if kernels else f'at least six runs, or one with kernels=True; then {ask}'}"


class Recorder:
    """What both recorders show of the run that they record."""

    recording: Recording

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {recording_line(self.recording)}"

    @property
    def run(self) -> str | None:
        """Name of the run; None until it is known."""
        return self.recording.run

    @property
    def failure(self) -> str | None:
        """Why the run has no numbers, or None."""
        return self.recording.failure
