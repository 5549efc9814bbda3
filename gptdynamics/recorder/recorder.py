"""The base class of both recorders: name and state of the run that is recorded."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptdynamics.recorder.recording import Recording


def recording_line(recording: Recording) -> str:
    """One line: what is recorded, where, and the next command."""
    place = f"{recording.config} in {recording.folder.root}"
    tests = f"{len(recording.examples.test)} test examples"
    if not recording.started:
        return f"a recording of {place} ({len(recording.examples.pool)} pool rows, {tests}) that has not started"
    kernels = f", kernels at {len(recording.kernels.checkpoints)} steps" if recording.kernels else ""
    measured = f"{tests} at {len(recording.measurements.step)} steps{kernels}"
    summary = f"run {recording.run} of {place}: {len(recording.curriculum)} updates, {measured}"
    if recording.failure is not None:
        return f"{summary}; failed: {recording.failure}"
    if not recording.written:
        return f"{summary}; not finished"
    command = f"gptfluence influence {shlex.quote(str(recording.folder.root))}"
    steps = "" if kernels else "at least six runs, or one with kernels=True; then "
    return f"recorded {summary}. Next: {steps}{command}"


class Recorder:
    """The base class of both recorders."""

    recording: Recording

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {recording_line(self.recording)}"

    @property
    def run(self) -> str | None:
        """Name of the run; None before it is chosen."""
        return self.recording.run

    @property
    def failure(self) -> str | None:
        """Why the run failed, or None."""
        return self.recording.failure
