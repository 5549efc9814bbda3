"""The GPTDynamics dataset: tasks, collection of runs, storage.

The parts are imported from their modules; importing the package loads none of the slow libraries.
"""

from importlib.metadata import version

from gptdynamics.errors import DataError, DivergedRunError, GPTDynamicsError, SettingsError

__version__ = version("gptdynamics")

__all__ = ["DataError", "DivergedRunError", "GPTDynamicsError", "SettingsError", "__version__"]
