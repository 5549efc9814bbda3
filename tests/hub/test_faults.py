"""The loopback Hub fails as it is told, and clients see it."""

from __future__ import annotations

import time

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests.hub.faults import Fault
from tests.hub.server import Hub

ID = "ada/things"


@pytest.fixture
def api(hub: Hub) -> HfApi:
    api = HfApi()
    api.create_repo(ID)
    return api


def commit(api: HfApi) -> None:
    api.create_commit(ID, [CommitOperationAdd("a.safetensors", b"0" * 5000)], commit_message="a")


def test_a_connection_dropped_during_an_upload_is_tried_again_by_the_client(api: HfApi, hub: Hub) -> None:
    hub.faults.add(Fault("PUT /_objects", drop_after=100))
    commit(api)
    assert hub.faults.asked("PUT /_objects") == 2
    assert hub.store.files("model", ID)["a.safetensors"] == b"0" * 5000


def test_a_connection_is_dropped_without_an_answer(api: HfApi, hub: Hub) -> None:
    hub.faults.add(Fault("POST /api/models/ada/things/commit", drop_after=10))
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(api)
    assert "a.safetensors" not in hub.store.files("model", ID)
    commit(api)
    assert "a.safetensors" in hub.store.files("model", ID)


@pytest.mark.parametrize("status", [500, 429])
def test_answers_of_failure_are_given_as_often_as_told(api: HfApi, hub: Hub, status: int) -> None:
    hub.faults.add(Fault("POST /api/models/ada/things/commit", times=2, status=status, retry_after=0))
    for _ in range(2):
        with pytest.raises(HfHubHTTPError) as raised:
            commit(api)
        assert raised.value.response.status_code == status
    commit(api)


def test_another_commit_comes_first(api: HfApi, hub: Hub) -> None:
    head = hub.store.history("model", ID)[0].sha
    rival = Fault("POST .*/commit/", before=lambda: hub.store.put("model", ID, {"b.txt": b"b"}))
    hub.faults.add(rival)
    operation = CommitOperationAdd("a.txt", b"a")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(ID, [operation], commit_message="a", parent_commit=head)
    assert set(hub.store.files("model", ID)) == {".gitattributes", "b.txt"}


def test_a_slow_answer_is_slow(api: HfApi, hub: Hub) -> None:
    hub.faults.add(Fault("GET /api/models", delay=0.3))
    start = time.perf_counter()
    api.repo_info(ID)
    assert time.perf_counter() - start > 0.3
