"""Parts of a collected folder, and attempts without pauses."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptdynamics.hub import repository as repositories
from tests.gptdynamics.hub.pushing import part_of


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repositories, "FIRST_PAUSE_SECONDS", 0.001)
    # The client's own pauses before it tries an upload again.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@pytest.fixture
def first(collected_once: Path, tmp_path: Path) -> Path:
    """The first four runs."""
    return part_of(collected_once, tmp_path / "first", "0000", "0001", "0002", "0003")


@pytest.fixture
def second(collected_once: Path, tmp_path: Path) -> Path:
    """The other two."""
    return part_of(collected_once, tmp_path / "second", "0004", "0005")
