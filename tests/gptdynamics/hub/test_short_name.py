"""`load_dataset("gptdynamics", ...)`: processes of their own, from an empty folder, against a loopback Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptdynamics.dataset import read_dynamics
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.hub import source
from tests.hub.server import Hub
from tests.warm_python import WarmPython

CARD = """---
configs:
{configs}---
"""
CONFIG = """- config_name: {name}
  data_files:
  - split: train
    path: data/{name}/train-*.parquet
  - split: test
    path: data/{name}/test-*.parquet
"""

Ask = Callable[..., Any]


def make_folder(root: Path, values: dict[str, int]) -> Path:
    """A dataset folder whose configs hold two rows a split, of one number each."""
    for name, value in values.items():
        for split in ("train", "test"):
            path = root / "data" / name / f"{split}-0000.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"loss": [[float(value), 0.0], [1.0, float(value)]]}), path)
    card = CARD.format(configs="".join(CONFIG.format(name=name) for name in values))
    (root / "README.md").write_text(card, encoding="utf-8")
    return root


def publish(hub: Hub, id: str, folder: Path) -> None:
    owner = id.split("/")[0]
    user = hub.store.users[hub.store.add_user(owner)]
    if ("dataset", id) not in hub.store.repositories:
        hub.store.create("dataset", id, user)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.store.put("dataset", id, files)


@pytest.fixture
def ask(client: WarmPython, hub: Hub, tmp_path: Path) -> Ask:
    """Run Python in a process of its own; what its last expression prints as JSON, or its error's last line."""
    bundled = make_folder(tmp_path / "bundled" / "gptdynamics", {"rte_nano": 1})
    publish(hub, "gptdynamics/gptdynamics", make_folder(tmp_path / "hub", {"rte_nano": 2, "rte_410m": 3}))
    (tmp_path / "empty").mkdir()
    before = """
import json
def first(rows):
    return next(iter(rows))["loss"][0]
"""
    sample = f"import gptdynamics.hub.source as s, pathlib; s.BUNDLED = pathlib.Path({str(bundled)!r})\n"

    def run(code: str, imports: str = "import gptdynamics\nfrom datasets import load_dataset\n", **more: str) -> Any:
        script = f"{before}{imports}{sample if 'gptdynamics' in imports else ''}{code}"
        environment = hub.environment(tmp_path / "home") | more
        done = client.run(script, environment, Path(more.get("PWD", tmp_path / "empty")))
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        return json.loads(done.stdout.splitlines()[-1])

    return run


LOAD = 'print(json.dumps(first(load_dataset("gptdynamics", {!r}, split="test"))))'


@pytest.mark.parametrize(
    "imports",
    [
        "import gptdynamics\nfrom datasets import load_dataset\n",
        "from datasets import load_dataset\nimport gptdynamics\n",
        "from datasets import load_dataset, load_dataset_builder, get_dataset_config_names\nimport gptdynamics\n",
    ],
)
def test_the_bundled_sample_comes_first_then_the_hub(ask: Ask, imports: str) -> None:
    assert ask(LOAD.format("rte_nano") + "\n" + LOAD.format("rte_410m"), imports) == 3
    assert ask(LOAD.format("rte_nano"), imports) == 1


def test_streaming_processes_splits_names_and_pickles(ask: Ask) -> None:
    code = """
import pickle
from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset_builder
both = load_dataset("gptdynamics", "rte_410m", num_proc=2)
streamed = load_dataset("gptdynamics", "rte_410m", split="train", streaming=True)
builder = pickle.loads(pickle.dumps(load_dataset_builder("gptdynamics", "rte_nano")))
builder.download_and_prepare()
print(json.dumps({
    "splits": {split: len(rows) for split, rows in both.items()},
    "half": len(load_dataset("gptdynamics", "rte_nano", split="train[:50%]")),
    "streamed": first(streamed),
    "again": first(pickle.loads(pickle.dumps(both["test"]))),
    "names": get_dataset_config_names("gptdynamics"),
    "split_names": get_dataset_split_names("gptdynamics", "rte_410m"),
    "builder": first(builder.as_dataset("test")),
}))
"""
    assert ask(code) == {
        "splits": {"train": 2, "test": 2},
        "half": 1,
        "streamed": 3,
        "again": 3,
        "names": ["rte_nano", "rte_410m"],
        "split_names": ["train", "test"],
        "builder": 1,
    }


def test_a_builder_function_imported_before_knows_both_sources(ask: Ask) -> None:
    imports = "from datasets import load_dataset_builder\nimport gptdynamics\n"
    code = """
values = []
for name in ("rte_nano", "rte_410m"):
    builder = load_dataset_builder("gptdynamics", name)
    builder.download_and_prepare()
    values.append(first(builder.as_dataset("test")))
print(json.dumps(values))
"""
    assert ask(code, imports) == [1, 3]


def test_a_revision_is_one_of_the_hub(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    old = hub.store.history("dataset", "gptdynamics/gptdynamics")[0].sha
    hub.store.repositories["dataset", "gptdynamics/gptdynamics"].tags["v1"] = old
    publish(hub, "gptdynamics/gptdynamics", make_folder(tmp_path / "newer", {"rte_nano": 7}))
    code = 'print(json.dumps(first(load_dataset("gptdynamics", "rte_nano", split="test", revision={!r}))))'
    assert ask(code.format("v1")) == 2
    assert ask(code.format("main")) == 7
    assert "nowhere" in ask(code.format("nowhere"))


def test_what_was_loaded_is_there_offline(ask: Ask) -> None:
    assert ask(LOAD.format("rte_410m")) == 3
    assert ask(LOAD.format("rte_410m"), HF_HUB_OFFLINE="1") == 3
    assert ask(LOAD.format("rte_nano"), HF_HUB_OFFLINE="1") == 1


def test_load_needs_no_import_of_datasets(ask: Ask) -> None:
    code = (
        'print(json.dumps([gptdynamics.load(name, split="test")[0]["loss"][0] for name in ("rte_nano", "rte_410m")]))'
    )
    assert ask(code, "import gptdynamics\n") == [1, 3]


def test_the_variable_comes_before_everything(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", {"rte_nano": 4, "rte_x": 5})
    assert ask(LOAD.format("rte_nano"), GPTDYNAMICS_DATASET=str(folder)) == 4
    assert ask(LOAD.format("rte_nano"), GPTDYNAMICS_DATASET=os.path.relpath(folder, tmp_path / "empty")) == 4
    names = "from datasets import get_dataset_config_names as names; print(json.dumps(names('gptdynamics')))"
    assert ask(names, GPTDYNAMICS_DATASET=str(folder)) == ["rte_nano", "rte_x"]
    publish(hub, "ada/other", make_folder(tmp_path / "other", {"rte_nano": 6}))
    assert ask(LOAD.format("rte_nano"), GPTDYNAMICS_DATASET="ada/other") == 6
    error = ask(LOAD.format("rte_nano"), GPTDYNAMICS_DATASET="nothing")
    assert error.endswith(
        "$GPTDYNAMICS_DATASET is 'nothing': neither a folder nor a Hub id <owner>/<name>. Set it to one"
    )
    error = ask(LOAD.format("rte_410m"), GPTDYNAMICS_DATASET=str(folder))
    assert error.endswith(f"gptdynamics has no config 'rte_410m' (looked in {folder}); it has: rte_nano, rte_x")


def test_an_unknown_config_lists_the_known_ones(ask: Ask) -> None:
    error = ask(LOAD.format("rte_1b"))
    assert error == (
        "gptdynamics.errors.SettingsError: gptdynamics has no config 'rte_1b' "
        "(looked in gptdynamics/gptdynamics); it has: rte_nano, rte_410m"
    )


@pytest.mark.parametrize("more", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, {}])
def test_a_config_that_is_nowhere_says_how_to_get_it(ask: Ask, hub: Hub, more: dict[str, str]) -> None:
    if not more:
        hub.store.repositories.clear()
    error = ask(LOAD.format("rte_410m"), **more)
    assert error.startswith(
        "gptdynamics.errors.DataError: config 'rte_410m' is not in the bundled sample (it has: rte_nano), and "
        "gptdynamics/gptdynamics cannot be read ("
    )
    assert error.endswith("or make it: gptdynamics collect rte_410m --output DIR")


def test_commands_and_functions_say_the_same_of_such_a_config() -> None:
    with pytest.raises(DataError) as raised:
        read_dynamics("gptdynamics", "rte_410m")
    message = str(raised.value)
    assert message.startswith("config 'rte_410m' is not in the bundled sample (it has: boolq_nano, flan_nano, ")
    assert "_runs" not in message and message.endswith("or make it: gptdynamics collect rte_410m --output DIR")


def test_from_the_root_of_a_clone_nothing_need_be_imported(ask: Ask, tmp_path: Path) -> None:
    imports = "from datasets import load_dataset\n"
    assert ask(LOAD.format("rte_nano"), imports, PWD=str(tmp_path / "bundled"), HF_HUB_OFFLINE="1") == 1


def test_a_folder_has_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTDYNAMICS_DATASET", str(tmp_path))
    with pytest.raises(SettingsError, match=r"is a folder, .*, which has no revisions: leave out 'v1'"):
        source.source_of("rte_nano", "v1")
    assert source.source_of("rte_nano") == str(tmp_path)


def test_importing_the_package_imports_nothing_slow() -> None:
    slow = ("datasets", "huggingface_hub", "numpy")
    code = f"import sys, gptdynamics; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
