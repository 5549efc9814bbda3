"""Recording a training of your own as a run of a dataset folder (docs/how-to/record-training.md).

Names are imported when they are first asked for: recorders load the libraries of a Trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptdynamics.lazy import lazy_names

if TYPE_CHECKING:
    from gptdynamics.dataset.recorded import RecordSettings
    from gptdynamics.recorder.steps import StepRecorder
    from gptdynamics.recorder.trainer import DynamicsRecorder
    from gptdynamics.settings.kernels import KernelSettings

__all__ = ["DynamicsRecorder", "KernelSettings", "RecordSettings", "StepRecorder"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DynamicsRecorder": "gptdynamics.recorder.trainer",
        "KernelSettings": "gptdynamics.settings.kernels",
        "RecordSettings": "gptdynamics.dataset.recorded",
        "StepRecorder": "gptdynamics.recorder.steps",
    },
)
