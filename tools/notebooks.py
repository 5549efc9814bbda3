"""Run the notebooks of `examples/` as they are, and write what they print into them: `make examples`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# A cell that takes longer has gone wrong; on a busy machine they take many times their usual seconds.
PATIENCE = 3600


def run_notebook(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of its cells, run in order in a folder.

    Args:
        path: of the notebook, which is not changed.
        folder: where its cells write.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    # Bars of progress and warnings of libraries are no part of the story.
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found,ignore::FutureWarning"}
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3", resources=resources, record_timing=False)
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    return notebook


def main(names: list[str]) -> None:
    """Run these notebooks, or all."""
    for path in [EXAMPLES / name for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        print(path.name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run_notebook(path, Path(folder)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
