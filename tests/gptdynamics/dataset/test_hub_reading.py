"""Datasets read from the Hub, and what may be wrong with them: one line, and nothing changes on either side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.hub.push import push
from tests.hub.server import Hub

ID = "ada/dynamics"
RUN = "data/rte_tiny/train-0001.parquet"
Change = Callable[[Hub, pytest.MonkeyPatch], None]


def as_user(name: str | None) -> Change:
    def change(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.store.repositories["dataset", ID].private = True
        if name is None:
            monkeypatch.delenv("HF_TOKEN")
        else:
            monkeypatch.setenv("HF_TOKEN", f"hf_{name}_write")

    return change


def put(path: str, content: bytes | None) -> Change:
    return lambda hub, monkeypatch: hub.store.put("dataset", ID, {path: content}) and None


def nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it as it is."""


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        (ID, as_user("ben"), f"{ID}: neither a folder nor a dataset that can be read from the Hub (404 "),
        (ID, as_user(None), f"{ID}: neither a folder nor a dataset that can be read from the Hub (401 "),
        (ID, as_user("nobody"), f"{ID}: neither a folder nor a dataset that can be read from the Hub ("),
        ("dynamics", nothing, "dynamics: no such dataset folder"),
        ("ada/nothing", nothing, "ada/nothing: neither a folder nor a dataset that can be read from the Hub (404 "),
        ("ada/other", nothing, "ada/other has no runs of config 'rte_tiny'; it has: none"),
        (ID, put(RUN, b"something else"), "train-0001.parquet: cannot be read as Parquet"),
        (ID, put("data/rte_tiny_runs/train-0001.parquet", b""), "train-0001.parquet: cannot be read as Parquet"),
        (ID, put("data/rte_examples/pool.parquet", None), "pool.parquet: no such file"),
        (ID, put("../../evil.parquet", b"x"), f"{ID}: neither a folder nor a dataset that can be read from the Hub ("),
    ],
)
def test_what_cannot_be_read_is_one_line(
    hub: Hub,
    collected_once: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    change: Change,
    message: str,
) -> None:
    hub.store.create("dataset", "ada/other", hub.store.users["hf_ada_write"])
    hub.store.put("dataset", "ada/other", {"data/train.csv": b"a,b"})
    push(collected_once, ID)
    change(hub, monkeypatch)
    before = {key: dict(each.branches) for key, each in hub.store.repositories.items()}
    with pytest.raises(GPTDynamicsError) as raised:
        read_dynamics(source, "rte_tiny", "loss")
    assert message in str(raised.value) and "\n" not in str(raised.value) and "hf_" not in str(raised.value)
    assert {key: dict(each.branches) for key, each in hub.store.repositories.items()} == before
    assert not list(tmp_path.rglob("*evil*"))


def test_a_damaged_repository_is_verified_as_a_folder_is(hub: Hub, collected_once: Path) -> None:
    push(collected_once, ID)
    assert verify(ID).ok
    hub.store.put("dataset", ID, {RUN: b"something else"})
    (fault,) = verify(ID).faults
    assert RUN in str(fault) and "cannot be read as Parquet" in str(fault)
