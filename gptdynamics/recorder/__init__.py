"""Recording a training other than `gptdynamics collect`'s as a run (docs/how-to/record-training.md)."""

from gptdynamics.dataset.recorded import RecordSettings
from gptdynamics.recorder.steps import StepRecorder
from gptdynamics.recorder.trainer import DynamicsRecorder
from gptdynamics.settings.kernels import KernelSettings

__all__ = ["DynamicsRecorder", "KernelSettings", "RecordSettings", "StepRecorder"]
