"""The layout of the paper authors' published release: runs of theirs into a dataset folder, runs of ours out of one."""

from gptdynamics.exchange.exporting import Exported, export_release
from gptdynamics.exchange.findings import Finding
from gptdynamics.exchange.importing import Imported, import_release

__all__ = ["Exported", "Finding", "Imported", "export_release", "import_release"]
