"""Dataset folders: writing runs, and reading them back as arrays."""

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.reading import Dynamics, metrics_of, read_dynamics

__all__ = ["DatasetFolder", "Dynamics", "metrics_of", "read_dynamics"]
