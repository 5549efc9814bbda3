"""What the tests of pushing to the loopback Hub share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gptdynamics.dataset.folder import DatasetFolder
from tests.hub.server import Hub

ID = "ada/dynamics"
COMMIT = "POST /api/datasets/ada/dynamics/commit"


def part_of(folder: Path, out: Path, *runs: str, config: str = "rte_tiny") -> Path:
    """A copy of a folder with only these runs of one config."""
    shutil.copytree(folder, out)
    task = config.split("_")[0]
    for path in [*out.glob("data/*/*.parquet"), *out.glob("manifests/*"), *out.glob("sidecar/*/*")]:
        examples = path.parent.name == f"{task}_examples"
        its_own = path.stem == config or path.parent.name in (config, f"{config}_runs")
        if not examples and not (its_own and (path.parent.name == "manifests" or path.stem[-4:] in runs)):
            path.unlink()
    DatasetFolder(out).write_card()
    return out


def as_user(name: str, monkeypatch: pytest.MonkeyPatch, role: str = "write") -> None:
    monkeypatch.setenv("HF_TOKEN", f"hf_{name}_{role}")


def fetched(hub: Hub, out: Path, id: str = ID, revision: str = "main") -> Path:
    """The repository's files as a folder."""
    for path, content in hub.store.files("dataset", id, revision).items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    return out
