"""`datasets`, `transformers` and `hf`, in processes of their own, use the loopback Hub through HF_ENDPOINT."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub.server import Hub
from tests.warm_python import WarmPython

CARD = """---
configs:
- config_name: numbers
  data_files:
  - split: train
    path: data/train-*.parquet
---
"""


def test_datasets_loads_streams_and_goes_on_offline(client: WarmPython, hub: Hub, tmp_path: Path) -> None:
    for at in range(2):
        pq.write_table(pa.table({"a": list(range(at, at + 3))}), tmp_path / f"{at}.parquet")
    owner = next(iter(hub.store.users.values()))
    hub.store.create("dataset", "ada/numbers", owner, private=True)
    files = {f"data/train-{at}.parquet": (tmp_path / f"{at}.parquet").read_bytes() for at in range(2)}
    hub.store.put("dataset", "ada/numbers", {"README.md": CARD.encode(), **files})
    code = """
import json, datasets
datasets.config.USE_PARQUET_EXPORT = False
rows = datasets.load_dataset("ada/numbers", "numbers", split="train")
found = {"rows": rows["a"][:]}
if not datasets.config.HF_HUB_OFFLINE:
    found["names"] = datasets.get_dataset_config_names("ada/numbers")
    streamed = datasets.load_dataset("ada/numbers", "numbers", split="train", streaming=True)
    found["streamed"] = [row["a"] for row in streamed]
print(json.dumps(found))
"""
    environment = hub.environment(tmp_path / "home", "hf_ada_write")

    def run(**more: str) -> dict[str, object]:
        done = client.run(code, environment | more, tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    expected = [0, 1, 2, 1, 2, 3]
    assert run() == {"rows": expected, "names": ["numbers"], "streamed": expected}
    assert run(HF_HUB_OFFLINE="1") == {"rows": expected}


def test_transformers_pushes_and_loads(hub: Hub, tmp_path: Path, tiny_model_folder: Path) -> None:
    code = f"""
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tiny_model_folder)!r})
model.push_to_hub("ada/tiny", private=True)
again = AutoModelForCausalLM.from_pretrained("ada/tiny")
print(all((a == b).all() for a, b in zip(model.parameters(), again.parameters(), strict=True)))
"""
    environment = hub.environment(tmp_path / "home", "hf_ada_write")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
    assert hub.store.repositories["model", "ada/tiny"].private


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_the_hf_command_uploads_and_downloads(hub: Hub, tmp_path: Path, kind: str) -> None:
    environment = hub.environment(tmp_path / "home", "hf_ada_write")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.bin").write_bytes(b"content")

    def hf(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "hf"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "ada" in hf("auth", "whoami")
    hf("repos", "create", "ada/files", "--type", kind)
    hf("upload", "ada/files", str(source), "--type", kind)
    hf("download", "ada/files", "a.bin", "--type", kind, "--local-dir", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "a.bin").read_bytes() == b"content"


def test_hf_commands_of_the_page_work(hub: Hub, tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "share.md"
    commands = re.findall(r"^\$ (hf .*)$", page.read_text(encoding="utf-8"), re.M)
    assert commands
    for id in {id for command in commands for id in re.findall(r"\b\w+/[\w-]*dynamics\b", command)}:
        owner = hub.store.users[hub.store.add_user(id.split("/")[0])]
        hub.store.create("dataset", id, owner)
        hub.store.put("dataset", id, {"data/a.parquet": b"content"})
    environment = hub.environment(tmp_path / "home", xet=True)
    for command in commands:
        words = shlex.split(command)
        words[0] = str(Path(sys.executable).parent / "hf")
        if words[1:3] == ["auth", "login"]:
            words += ["--token", "hf_ada_write"]  # what it asks for
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert [path.read_bytes() for path in tmp_path.rglob("a.parquet") if ".cache" not in path.parts] == [b"content"]
