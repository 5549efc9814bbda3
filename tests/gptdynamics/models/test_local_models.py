"""A folder as base model is named without its path, and found again from anywhere on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptdynamics.configs import RunSettings
from gptdynamics.models.base_model import model_revision
from gptdynamics.models.local_models import published_name, remember_folder, remembered_folder


@pytest.mark.parametrize("name", ["nano", "410m", "owner/name", "owner/name@main"])
def test_other_names_stay(name: str) -> None:
    assert published_name(name) == name


def test_a_folder_is_named_without_its_path_and_found_from_elsewhere(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    revision = model_revision("models/mine")
    remember_folder("models/mine", revision)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert remembered_folder("mine") == tmp_path / "models" / "mine"
    assert model_revision("mine") == revision
    assert RunSettings("rte_x", 1e-3, base_model=str(tmp_path / "models" / "mine")).to_dict()["base_model"] == "mine"


def test_an_older_manifest_with_a_path_is_of_the_same_settings(tiny_model_folder: Path) -> None:
    settings = RunSettings("rte_x", 1e-3, base_model=str(tiny_model_folder))
    older = settings.to_dict() | {"base_model": str(tiny_model_folder)}
    assert settings.differences(older) == []
