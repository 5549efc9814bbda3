"""A Hub that answers what it should not, and repositories that hold what anybody may have put there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.hub import repository as repositories
from gptdynamics.hub.push import PushOptions, push
from gptdynamics.hub.repository import ATTEMPTS, UnreachableError
from tests.gptdynamics.hub.pushing import ID, part_of
from tests.hub.faults import Fault
from tests.hub.server import Hub

REPO = "/api/datasets/ada/dynamics"
# What a push asks, in its order.
REQUESTS = {
    "whoami": "GET /api/whoami-v2",
    "exists": f"GET {REPO}$",
    "create": "POST /api/repos/create",
    "refs": f"GET {REPO}/refs",
    "tree": f"GET {REPO}/tree",
    "preupload": f"POST {REPO}/preupload",
    "lfs": "POST /datasets/ada/dynamics.git/info/lfs",
    "commit": f"POST {REPO}/commit",
}


@pytest.fixture(scope="module")
def collected_once(collected_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a label config; not to be changed."""
    return part_of(collected_once, tmp_path_factory.mktemp("odd") / "dataset", "0000", "0001")


def one_line(error: BaseException) -> None:
    text = str(error)
    assert "\n" not in text and text.startswith(ID) and "hf_ada" not in text


@pytest.mark.parametrize("status", [403, 404, 409, pytest.param(412, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", REQUESTS)
def test_any_refusal_is_one_line(
    hub: Hub, collected_once: Path, name: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories, "ATTEMPTS", 2)
    hub.faults.add(Fault(REQUESTS[name], times=1000, status=status))
    try:
        push(collected_once, ID)
    except GPTDynamicsError as error:
        one_line(error)
    else:
        # 404: there is no such repository, and it is made; 409: it was there already.
        assert (name, status) in {("exists", 404), ("create", 409)}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"branches": [{"name": 3}]}',
        pytest.param(b"", marks=pytest.mark.slow),
        pytest.param(b"[" * 3000, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", REQUESTS)
def test_any_malformed_answer_is_one_line(
    hub: Hub, collected_once: Path, name: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories, "ATTEMPTS", 2)
    hub.faults.add(Fault(REQUESTS[name], times=1000, status=200, body=body))
    try:
        push(collected_once, ID)
    except GPTDynamicsError as error:
        one_line(error)


@pytest.mark.parametrize("size", [-1, 10**30, "many", None])
def test_odd_sizes_and_names_in_the_tree_are_one_line_or_harmless(hub: Hub, collected_once: Path, size: object) -> None:
    push(collected_once, ID)
    tree = [
        {"type": "file", "path": path, "oid": "0" * 40, "size": size}
        for path in ("README.md", "manifests/rte_tiny.json", "../../evil", "data/rte_tiny/train-0000.parquet")
    ]
    hub.faults.add(Fault(REQUESTS["tree"], times=1000, status=200, body=json.dumps(tree).encode()))
    try:
        push(collected_once, ID)
    except GPTDynamicsError as error:
        one_line(error)


@pytest.mark.parametrize("name", ["whoami", "exists", "create", "refs"])
def test_every_request_is_tried_again(hub: Hub, collected_once: Path, name: str) -> None:
    waited: list[str] = []
    # The client tries some of them by itself.
    hub.faults.add(Fault(REQUESTS[name], times=3, status=503))
    pushed = push(collected_once, ID, PushOptions(tag="v1"), waited.append)
    assert pushed.created and len(pushed.runs) == 2
    assert hub.faults.asked(REQUESTS[name]) >= 4


@pytest.mark.parametrize("name", ["whoami", "exists", "create"])
def test_after_eight_tries_it_is_said(hub: Hub, collected_once: Path, name: str) -> None:
    waited: list[str] = []
    hub.faults.add(Fault(REQUESTS[name], times=1000, status=503))
    with pytest.raises(UnreachableError, match=rf"^{ID}: .*, {ATTEMPTS} times"):
        push(collected_once, ID, on_wait=waited.append)
    assert len(waited) == ATTEMPTS - 1


def test_a_tag_whose_answer_was_lost_is_taken_as_made(hub: Hub, collected_once: Path) -> None:
    made: list[str] = []

    def make() -> None:
        repository = hub.store.repositories["dataset", ID]
        repository.tags["v1"] = repository.resolve("main").sha
        made.append("v1")

    hub.faults.add(Fault(f"POST {REPO}/tag", before=make))
    assert push(collected_once, ID, PushOptions(tag="v1")).sha is not None
    assert made == ["v1"]


ODD_CARDS = {
    "not UTF-8": b"\xff\xfe---\n",
    "deep": b"---\nx: " + b"[" * 5000 + b"\n---\n",
    "python": b"---\nx: !!python/object/apply:os.system [id]\n---\n",
    "list": b"---\n- a\n---\n",
}


@pytest.mark.parametrize("card", ODD_CARDS.values(), ids=ODD_CARDS)
def test_an_odd_card_is_one_line_and_stays(hub: Hub, collected: Path, card: bytes) -> None:
    push(collected, ID)
    hub.store.put("dataset", ID, {"README.md": card})
    (collected / "data/rte_tiny/train-0001.parquet").unlink()
    with pytest.raises(DataError, match=rf"^{ID}: README.md: .*Correct it") as error:
        push(collected, ID)
    one_line(error.value)
    assert hub.store.files("dataset", ID)["README.md"] == card


@pytest.mark.parametrize("tags", [b"7", b"[[a], {b: c}]", b"on"])
def test_odd_tags_are_merged(hub: Hub, collected: Path, tags: bytes) -> None:
    hub.store.create("dataset", ID, hub.store.users["hf_ada_write"])
    hub.store.put("dataset", ID, {"README.md": b"---\nlicense: mit\ntags: " + tags + b"\n---"})
    push(collected, ID)
    card = hub.store.files("dataset", ID)["README.md"].decode()
    assert "license: mit" in card and "- gptdynamics\n" in card


def test_a_picture_of_somebody_else_in_the_repository_stays(hub: Hub, collected_once: Path) -> None:
    hub.store.create("dataset", ID, hub.store.users["hf_ada_write"])
    hub.store.put("dataset", ID, {"trajectories.svg": b"<svg>mine</svg>"})
    push(collected_once, ID)
    files = hub.store.files("dataset", ID)
    assert files["trajectories.svg"] == b"<svg>mine</svg>" and b"trajectories.svg" not in files["README.md"]


@pytest.mark.parametrize(
    "change",
    [
        {"planned": [1]},
        {"planned": {"runs": "many"}},
        {"settings": 3},
        {"origin": {"runs": 3}},
        {"recording": 7},
        {"settings": {"config": {"deep": [[[]]]}}},
    ],
)
@pytest.mark.parametrize("config", ["rte_tiny", "other_tiny"])
def test_an_odd_manifest_is_one_line(hub: Hub, collected: Path, config: str, change: dict[str, object]) -> None:
    push(collected, ID)
    manifest = DatasetFolder(collected).manifest("rte_tiny") | change
    hub.store.put("dataset", ID, {f"manifests/{config}.json": json.dumps(manifest).encode()})
    try:
        push(collected, ID)
    except GPTDynamicsError as error:
        one_line(error)
    else:
        # What is not compared with ours does no harm.
        assert config == "other_tiny" or "recording" in change


@pytest.mark.parametrize("content", [b"", b"PAR1", b"[]", b"not parquet"])
@pytest.mark.parametrize(
    "path", ["data/rte_examples/pool.parquet", "data/rte_tiny_runs/train-0000.parquet", "manifests/rte_tiny.json"]
)
def test_an_odd_file_is_one_line(hub: Hub, collected: Path, path: str, content: bytes) -> None:
    push(collected, ID)
    hub.store.put("dataset", ID, {path: content})
    with pytest.raises(GPTDynamicsError) as error:
        push(collected, ID)
    assert "\n" not in str(error.value)
