"""The layout of the paper authors' release: imports their runs, and exports runs of this package."""

from gptdynamics.exchange.exporting import Exported, export_release
from gptdynamics.exchange.findings import Finding
from gptdynamics.exchange.importing import Imported, import_release

__all__ = ["Exported", "Finding", "Imported", "export_release", "import_release"]
