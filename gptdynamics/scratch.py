"""Temporary folders; those of killed commands are removed by the next command."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptdynamics.atomic import is_running

_NAME = re.compile(r"gptdynamics-(\d+)@([^/]*)-[^-/]*")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty temporary folder, removed at the end. First, folders of this user's killed processes are removed."""
    for path in Path(tempfile.gettempdir()).glob("gptdynamics-*"):
        match = _NAME.fullmatch(path.name)
        if match and match[2] == platform.node() and not is_running(int(match[1])) and _is_mine(path):
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"gptdynamics-{os.getpid()}@{platform.node()}-") as folder:
        yield Path(folder)


def _is_mine(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return path.is_dir() and not path.is_symlink() and status.st_uid == os.getuid()
