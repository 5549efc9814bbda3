"""The layout of the paper authors' published release: import of their runs, export of ours."""

from gptdynamics.exchange.exporting import Exported, export_release
from gptdynamics.exchange.findings import Finding
from gptdynamics.exchange.importing import Imported, import_release

__all__ = ["Exported", "Finding", "Imported", "export_release", "import_release"]
