"""The loader for `datasets` older than 4, run by a Python that has one: `make test-loading-script`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.dataset.schema import read_parquet, write_parquet
from tests.hub.server import Hub

SCRIPT = Path(__file__).parents[2] / "loading_script" / "gptdynamics.py"
PYTHON = os.environ.get("DATASETS_3_PYTHON")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="DATASETS_3_PYTHON names no Python with datasets 3.6"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder with a config of two splits; the train split has two files."""
    import pyarrow as pa

    root = tmp_path / "folder"
    for name, value in (("train-0000", 1.0), ("train-0001", 2.0), ("test-0004", 3.0)):
        steps = pa.array([[0, 1]], pa.list_(pa.int32()))
        losses = pa.array([[value, 0.5]], pa.list_(pa.float32()))
        write_parquet(pa.table({"step": steps, "loss": losses}), root / "data" / "rte_nano" / f"{name}.parquet")
    globs = "".join(f"  - split: {split}\n    path: data/rte_nano/{split}-*.parquet\n" for split in ("train", "test"))
    card = f"---\nconfigs:\n- config_name: rte_nano\n  data_files:\n{globs}---\n# Card\n"
    (root / "README.md").write_text(card, encoding="utf-8")
    return root


def run(code: str, hub: Hub, home: Path, **more: str) -> Any:
    script = f"import json\nfrom datasets import load_dataset\nscript = {str(SCRIPT)!r}\n{code}"
    environment = hub.environment(home) | more
    done = subprocess.run(
        [str(PYTHON), "-c", script], env=environment, cwd=home.parent, capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout.splitlines()[-1]) if not done.returncode else done.stderr.strip().splitlines()[-1]


def test_a_folder_is_read_and_read_again_when_it_grows(hub: Hub, folder: Path, tmp_path: Path) -> None:
    code = f"""
rows = load_dataset(script, "rte_nano", data_dir={str(folder)!r}, trust_remote_code=True)
print(json.dumps({{split: rows[split]["loss"] for split in rows}}))
"""
    expected = {"train": [[1.0, 0.5], [2.0, 0.5]], "test": [[3.0, 0.5]]}
    assert run(code, hub, tmp_path / "home") == expected
    source = folder / "data" / "rte_nano" / "train-0000.parquet"
    write_parquet(read_parquet(source), source.with_name("train-0002.parquet"))
    expected["train"].append([1.0, 0.5])
    assert run(code, hub, tmp_path / "home") == expected


def test_the_hub_is_read_and_streamed_and_there_offline(hub: Hub, folder: Path, tmp_path: Path) -> None:
    owner = hub.store.users[hub.store.add_user("gptdynamics")]
    hub.store.create("dataset", "gptdynamics/gptdynamics", owner)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.store.put("dataset", "gptdynamics/gptdynamics", files)
    code = """
rows = load_dataset(script, "rte_nano", split="train", streaming={}, trust_remote_code=True)
print(json.dumps([row["loss"] for row in rows]))
"""
    for streaming in (False, True):
        assert run(code.format(streaming), hub, tmp_path / "home") == [[1.0, 0.5], [2.0, 0.5]]
    assert run(code.format(False), hub, tmp_path / "home", HF_HUB_OFFLINE="1") == [[1.0, 0.5], [2.0, 0.5]]
    assert run(code.format(False), hub, tmp_path / "other", GPTDYNAMICS_DATASET=str(folder)) == [[1.0, 0.5], [2.0, 0.5]]


def test_an_unknown_config_lists_the_known_ones(hub: Hub, folder: Path, tmp_path: Path) -> None:
    code = f'load_dataset(script, "rte_1b", data_dir={str(folder)!r}, trust_remote_code=True)'
    error = run(code, hub, tmp_path / "home")
    assert error == "ValueError: gptdynamics has no config 'rte_1b'; it has: rte_nano"
