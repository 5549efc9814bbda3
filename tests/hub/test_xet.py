"""Clients with `hf_xet` send and fetch contents in chunks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hub.faults import Fault
from tests.hub.server import Hub
from tests.hub.xorbs import Xorb, hash_text, read_shard

ID = "ada/things"
COMMIT = f"""
import json, sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
api = HfApi()
def commit(*names, **options):
    operations = [CommitOperationAdd(name, str(Path(sys.argv[1]) / name)) for name in names]
    api.create_commit({ID!r}, operations, commit_message="more", repo_type="dataset", **options)
def fetched(name, **options):
    return Path(hf_hub_download({ID!r}, name, repo_type="dataset", **options)).read_bytes()
def sent(name):
    return (Path(sys.argv[1]) / name).read_bytes()
"""


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    """Files of noise, of numbers (which are packed by groups), of text, and one that shares most with another."""
    rng = np.random.default_rng(0)
    noise = rng.bytes(600_000)
    numbers = rng.normal(1.0, 0.01, 90_001).astype(np.float32).tobytes()[:-3]
    files = {
        "noise": noise,
        "numbers": numbers,
        "text": b"one and two " * 30_000,
        "longer": noise + b"more",
        "small": b"a",
    }
    root = tmp_path / "contents"
    root.mkdir()
    for name, content in files.items():
        (root / f"{name}.parquet").write_bytes(content)
    return root


def run(hub: Hub, contents: Path, code: str, user: str = "ada", xet: bool = True) -> Any:
    """Run code in a process with a cache of its own; what it prints last, as JSON."""
    environment = hub.environment(contents.parent / f"home-{user}-{xet}", f"hf_{user}_write", xet=xet)
    environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    command = [sys.executable, "-c", COMMIT + code, str(contents)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def repository(hub: Hub) -> Hub:
    hub.store.create("dataset", ID, hub.store.users["hf_ada_write"])
    return hub


ALL = ("noise.parquet", "numbers.parquet", "text.parquet", "small.parquet")


def test_contents_sent_in_chunks_come_back_with_xet_and_without(repository: Hub, contents: Path) -> None:
    compare = f"print(json.dumps([fetched(name) == sent(name) for name in {ALL}]))"
    assert run(repository, contents, f"commit(*{ALL})\n{compare}") == [True] * 4
    assert repository.faults.asked("POST /v1/shards") > 0
    assert repository.faults.asked("GET /v1/reconstructions") > 0
    assert repository.faults.asked("PUT") == repository.faults.asked("GET .*/resolve/") == 0
    stored = repository.store.files("dataset", ID)
    assert all(stored[name] == (contents / name).read_bytes() for name in ALL)
    repository.faults.clear()
    assert run(repository, contents, compare, xet=False) == [True] * 4
    assert repository.faults.asked("GET .*/resolve/") == 4 and repository.faults.asked("GET /v1/") == 0


def test_what_was_sent_whole_is_fetched_by_a_client_with_xet(repository: Hub, contents: Path) -> None:
    assert run(repository, contents, "commit('noise.parquet')\nprint(1)", xet=False) == 1
    assert run(repository, contents, "print(json.dumps(fetched('noise.parquet') == sent('noise.parquet')))")
    assert repository.faults.asked("GET /v1/reconstructions") == 0


def test_chunks_that_are_there_are_not_kept_twice(repository: Hub, contents: Path) -> None:
    code = "commit('noise.parquet')\ncommit('longer.parquet')\n"
    assert run(repository, contents, code + "print(json.dumps(fetched('longer.parquet') == sent('longer.parquet')))")
    assert sum(len(xorb.packed) for xorb in repository.store.xorbs.values()) < 1.3 * 600_000


def test_a_connection_dropped_during_an_upload_is_tried_again(repository: Hub, contents: Path) -> None:
    repository.faults.add(Fault("POST /v1/xorbs", drop_after=1000))
    code = "commit('noise.parquet')\nprint(json.dumps(fetched('noise.parquet') == sent('noise.parquet')))"
    assert run(repository, contents, code)
    assert repository.faults.asked("POST /v1/xorbs") == 2


def test_who_may_not_read_or_write_gets_no_chunks(repository: Hub, contents: Path) -> None:
    code = """
from huggingface_hub.errors import HfHubHTTPError
def refused(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
print(json.dumps([refused(lambda: commit("noise.parquet")), refused(lambda: commit("noise.parquet", create_pr=True))]))
"""
    assert run(repository, contents, code, user="ben") == ["HfHubHTTPError", None]
    repository.store.repositories["dataset", ID].private = True
    place = f"{repository.url}/api/datasets/{ID}/xet-read-token/main"
    assert httpx2.get(place, headers={"Authorization": "Bearer hf_ben_write"}).status_code == 404
    (file,) = repository.store.xet_files
    guessed = {"Authorization": "Bearer hf_ada_write"}
    assert httpx2.get(f"{repository.url}/v1/reconstructions/{file}", headers=guessed).status_code == 401
    token = httpx2.get(place, headers={"Authorization": "Bearer hf_ada_write"}).json()["accessToken"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx2.get(f"{repository.url}/v1/reconstructions/{file}", headers=headers).status_code == 200
    assert httpx2.post(f"{repository.url}/v1/shards", headers=headers, content=b"").status_code == 403


def test_a_part_of_a_file_is_planned_from_the_term_it_begins_in(repository: Hub, contents: Path) -> None:
    run(repository, contents, "commit('noise.parquet')\ncommit('longer.parquet')\nprint(1)")
    place = f"{repository.url}/api/datasets/{ID}/xet-read-token/main"
    token = httpx2.get(place, headers={"Authorization": "Bearer hf_ada_write"}).json()["accessToken"]
    entry = max(repository.store.xet_files.values(), key=lambda each: sum(term.size for term in each.terms))
    whole = (contents / "longer.parquet").read_bytes()
    for first, last in ((0, 10), (300_000, 300_999), (599_990, 600_003)):
        headers = {"Authorization": f"Bearer {token}", "Range": f"bytes={first}-{last}"}
        plan = httpx2.get(f"{repository.url}/v1/reconstructions/{entry.hash}", headers=headers).json()
        content = b""
        for term in plan["terms"]:
            chunks = term["range"]
            (info,) = [each for each in plan["fetch_info"][term["hash"]] if each["range"] == chunks]
            span = {"Range": f"bytes={info['url_range']['start']}-{info['url_range']['end']}"}
            packed = httpx2.get(info["url"], headers=span).content
            content += Xorb.read(packed).unpack(0, chunks["end"] - chunks["start"])
        offset = plan["offset_into_first_range"]
        assert content[offset : offset + last + 1 - first] == whole[first : last + 1]
    headers["Range"] = "bytes=600004-"
    assert httpx2.get(f"{repository.url}/v1/reconstructions/{entry.hash}", headers=headers).status_code == 416


def test_a_shard_that_lies_is_refused(repository: Hub, contents: Path) -> None:
    run(repository, contents, "commit('small.parquet')\nprint(1)")
    (entry,) = repository.store.xet_files.values()
    (term,) = entry.terms

    def raw(text: str) -> bytes:
        return b"".join(int(text[at : at + 16], 16).to_bytes(8, "little") for at in range(0, 64, 16))

    def shard(sha256: str, stop: int) -> bytes:
        numbers = b"".join(number.to_bytes(4, "little") for number in (0, term.size, term.start, stop))
        header = raw(entry.hash) + (1 << 30).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(8)
        last = b"\xff" * 32 + bytes(16)
        return bytes(48) + header + raw(term.xorb) + numbers + raw(sha256) + bytes(16) + last + last

    assert read_shard(shard(entry.sha256, term.stop)) == [entry]
    place = f"{repository.url}/api/datasets/{ID}/xet-write-token/main"
    token = httpx2.get(place, headers={"Authorization": "Bearer hf_ada_write"}).json()["accessToken"]
    for content, status in (
        (shard(entry.sha256, term.stop), 200),
        (shard("0" * 64, term.stop), 400),
        (shard(entry.sha256, term.stop + 1), 400),
        (shard(entry.sha256, term.stop)[:100], 400),
    ):
        answer = httpx2.post(
            f"{repository.url}/v1/shards", headers={"Authorization": f"Bearer {token}"}, content=content
        )
        assert answer.status_code == status, answer.text


def test_hashes_are_written_as_four_little_endian_numbers() -> None:
    assert hash_text(bytes(range(32))) == "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"


@given(st.binary(min_size=1, max_size=50))
def test_grouped_bytes_are_put_back(data: bytes) -> None:
    import pyarrow as pa

    grouped = b"".join(data[place::4] for place in range(4))
    for scheme, packed in (
        (0, data),
        (1, pa.compress(data, "lz4", asbytes=True)),
        (2, pa.compress(grouped, "lz4", asbytes=True)),
    ):
        chunk = (
            bytes([0]) + len(packed).to_bytes(3, "little") + bytes([scheme]) + len(data).to_bytes(3, "little") + packed
        )
        xorb = Xorb.read(chunk + chunk + b"XETBLOB and so on")
        assert xorb.unpack(0, 2) == data + data
        with pytest.raises(ValueError, match="cut off"):
            Xorb.read((chunk + chunk)[:-1])
