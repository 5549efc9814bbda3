"""Recording training that is not `gptdynamics collect`'s: it becomes a run of a dataset folder (docs/recording.md)."""

from gptdynamics.dataset.recorded import RecordSettings
from gptdynamics.recorder.steps import StepRecorder
from gptdynamics.recorder.trainer import DynamicsRecorder

__all__ = ["DynamicsRecorder", "RecordSettings", "StepRecorder"]
