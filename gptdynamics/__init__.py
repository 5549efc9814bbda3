"""The GPTDynamics dataset: tasks, collection of runs, storage.

The parts are imported from their modules; importing the package loads none of the slow libraries.
"""

from importlib.metadata import version

from gptdynamics.errors import DataError, DivergedRunError, GPTDynamicsError, SettingsError
from gptdynamics.hub.short_name import install, load
from gptdynamics.hub.source import DEFAULT_REPO

__version__ = version("gptdynamics")

# From here on `load_dataset("gptdynamics", ...)` works in any folder, whenever `datasets` is or was imported.
install()

__all__ = [
    "DEFAULT_REPO",
    "DataError",
    "DivergedRunError",
    "GPTDynamicsError",
    "SettingsError",
    "__version__",
    "load",
]
