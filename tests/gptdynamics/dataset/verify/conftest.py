"""Folders of few runs, for one test to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gptdynamics.dataset.folder import DatasetFolder


def with_runs(root: Path, out: Path, runs: tuple[str, ...]) -> Path:
    """A copy of a folder with only some of its runs."""
    shutil.copytree(root, out)
    for path in [*out.glob("data/*/*-*.parquet"), *out.glob("sidecar/*/*.json")]:
        if path.name.split("-")[-1].split(".")[0] not in runs:
            path.unlink()
    DatasetFolder(out).write_card()
    return out


@pytest.fixture(scope="session")
def few_once(collected_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_runs(collected_once, tmp_path_factory.mktemp("few") / "dataset", ("0000", "0001", "0004"))


@pytest.fixture
def few(few_once: Path, tmp_path: Path) -> Path:
    """Three runs of a label and of a generation config, for one test to change."""
    return Path(shutil.copytree(few_once, tmp_path / "dataset"))


@pytest.fixture(scope="session")
def gradients_once(with_gradients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_runs(with_gradients, tmp_path_factory.mktemp("gradients") / "dataset", ("0001", "0004", "u0000"))


@pytest.fixture
def gradients(gradients_once: Path, tmp_path: Path) -> Path:
    """Runs with gradients, on unseen rows and of a mixture, for one test to change."""
    return Path(shutil.copytree(gradients_once, tmp_path / "dataset"))
