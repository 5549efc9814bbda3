"""An environment for each peer: its pinned packages alone, and beside them torch and what else the project has."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

# Methods that run side by side may share an environment.
_LOCKS: dict[str, threading.Lock] = {}


class NoEnvironmentError(Exception):
    """A peer's packages cannot be installed; the message is the reason."""


def python_of(requirements: tuple[str, ...], folder: Path) -> Path:
    """The interpreter of an environment with these packages; it is made if it is not there.

    Packages come without what they depend on: they are given the project's torch and transformers.

    Raises:
        NoEnvironmentError: a package cannot be installed.
    """
    if not requirements:
        return Path(sys.executable)
    root = folder / hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    with _LOCKS.setdefault(root.name, threading.Lock()):
        return _made(root, requirements)


def _made(root: Path, requirements: tuple[str, ...]) -> Path:
    python, done = root / "bin" / "python", root / "installed.txt"
    if done.exists():
        return python
    shutil.rmtree(root, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], capture_output=True, text=True)
    if made.returncode:
        raise NoEnvironmentError(f"no environment can be made here: {(made.stderr.strip() or 'venv').splitlines()[-1]}")
    packages = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    made = subprocess.run([*install, "--target", packages, *requirements], capture_output=True, text=True)
    if made.returncode:
        raise NoEnvironmentError(f"pip install {' '.join(requirements)}: {made.stderr.strip().splitlines()[-1]}")
    (packages / "project.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    done.write_text("\n".join(requirements))
    return python


def variables(threads: int = 1) -> dict[str, str]:
    """The environment variables of a method's process: nothing is downloaded."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
