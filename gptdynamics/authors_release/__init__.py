"""The layout of the paper authors' published release: runs of theirs into a dataset folder, runs of ours out of one."""

from gptdynamics.authors_release.exporting import Exported, export_release
from gptdynamics.authors_release.findings import Finding
from gptdynamics.authors_release.importing import Imported, import_release

__all__ = ["Exported", "Finding", "Imported", "export_release", "import_release"]
