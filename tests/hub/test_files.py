"""Real clients upload to the loopback Hub and read back."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub.server import Hub

ID = "ada/things"
LARGE = bytes(range(256)) * 40


@pytest.fixture
def api(hub: Hub) -> HfApi:
    """Ada's client, and a data set of hers with a small and a large file."""
    api = HfApi()
    api.create_repo(ID, repo_type="dataset")
    api.create_commit(
        ID,
        [CommitOperationAdd("notes/a.txt", b"small"), CommitOperationAdd("data/a.parquet", LARGE)],
        commit_message="first",
        repo_type="dataset",
    )
    return api


def test_what_was_uploaded_comes_back(api: HfApi, tmp_path: Path) -> None:
    for path, content in (("notes/a.txt", b"small"), ("data/a.parquet", LARGE)):
        assert Path(hf_hub_download(ID, path, repo_type="dataset")).read_bytes() == content
    folder = Path(api.snapshot_download(ID, repo_type="dataset", local_dir=tmp_path / "copy"))
    assert (folder / "data" / "a.parquet").read_bytes() == LARGE
    (entry,) = api.get_paths_info(ID, ["data/a.parquet", "nothing"], repo_type="dataset")
    assert (entry.size, entry.lfs is not None) == (len(LARGE), True)
    names = {entry.path for entry in api.list_repo_tree(ID, repo_type="dataset", recursive=True)}
    assert names == {".gitattributes", "notes", "notes/a.txt", "data", "data/a.parquet"}
    assert {entry.path for entry in api.list_repo_tree(ID, "data", repo_type="dataset")} == {"data/a.parquet"}


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (700, 900), (10200, 10240)])
def test_parts_of_a_file_are_served(api: HfApi, hub: Hub, start: int, stop: int) -> None:
    filesystem = HfFileSystem(endpoint=hub.url, skip_instance_cache=True)
    with filesystem.open(f"datasets/{ID}/data/a.parquet", block_size=64) as file:
        file.seek(start)
        assert file.read(stop - start) == LARGE[start:stop]


def test_a_file_that_is_there_is_not_uploaded_again(api: HfApi, hub: Hub) -> None:
    hub.faults.clear()
    head = hub.store.history("dataset", ID)[0].sha
    operations = [CommitOperationAdd("data/a.parquet", LARGE), CommitOperationAdd("data/b.parquet", LARGE)]
    api.create_commit(ID, operations, commit_message="again", repo_type="dataset", parent_commit=head)
    assert hub.faults.asked("PUT") == 0
    assert hub.store.files("dataset", ID)["data/b.parquet"] == LARGE


def test_a_commit_on_another_parent_changes_nothing(api: HfApi, hub: Hub) -> None:
    head = hub.store.history("dataset", ID)[0].sha
    hub.store.put("dataset", ID, {"notes/b.txt": b"meanwhile"})
    before = hub.store.files("dataset", ID)
    operations = [CommitOperationAdd("notes/c.txt", b"late"), CommitOperationDelete("notes/a.txt")]
    with pytest.raises(HfHubHTTPError) as raised:
        api.create_commit(ID, operations, commit_message="late", repo_type="dataset", parent_commit=head)
    assert raised.value.response.status_code == 412
    assert hub.store.files("dataset", ID) == before


def test_a_commit_of_which_one_part_fails_changes_nothing(api: HfApi, hub: Hub) -> None:
    before = hub.store.files("dataset", ID)
    operations = [CommitOperationAdd("notes/c.txt", b"new"), CommitOperationDelete("notes/nothing.txt")]
    with pytest.raises(EntryNotFoundError):
        api.create_commit(ID, operations, commit_message="half", repo_type="dataset")
    assert hub.store.files("dataset", ID) == before
    operations = [CommitOperationDelete("notes/", is_folder=True)]
    api.create_commit(ID, operations, commit_message="remove", repo_type="dataset")
    assert "notes/a.txt" not in hub.store.files("dataset", ID)


def test_branches_tags_and_history(api: HfApi, hub: Hub) -> None:
    first = hub.store.history("dataset", ID)[0].sha
    api.create_tag(ID, tag="v1", repo_type="dataset")
    api.create_branch(ID, branch="try/this", repo_type="dataset")
    api.create_commit(
        ID, [CommitOperationAdd("b.txt", b"b")], commit_message="b", repo_type="dataset", revision="try/this"
    )
    assert "b.txt" not in api.list_repo_files(ID, repo_type="dataset")
    assert "b.txt" in api.list_repo_files(ID, repo_type="dataset", revision="try/this")
    refs = api.list_repo_refs(ID, repo_type="dataset")
    assert {branch.name for branch in refs.branches} == {"main", "try/this"}
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    titles = [commit.title for commit in api.list_repo_commits(ID, repo_type="dataset", revision="try/this")]
    assert titles == ["b", "first", "initial commit"]
    api.delete_branch(ID, branch="try/this", repo_type="dataset")
    api.delete_tag(ID, tag="v1", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(ID, repo_type="dataset", revision="v1")


def test_a_pull_request_of_somebody_else_is_merged(api: HfApi, hub: Hub) -> None:
    ben = HfApi(token="hf_ben_write")
    with pytest.raises(HfHubHTTPError, match="rights"):
        ben.create_commit(ID, [CommitOperationAdd("x", b"x")], commit_message="x", repo_type="dataset")
    made = ben.create_commit(
        ID,
        [CommitOperationAdd("data/ben.parquet", b"of ben")],
        commit_message="x",
        repo_type="dataset",
        create_pr=True,
    )
    assert made.pr_num == 1
    assert "data/ben.parquet" not in hub.store.files("dataset", ID)
    assert "data/ben.parquet" in api.list_repo_files(ID, repo_type="dataset", revision="refs/pr/1")
    hub.store.put("dataset", ID, {"notes/b.txt": b"meanwhile"})
    api.merge_pull_request(ID, 1, repo_type="dataset")
    files = hub.store.files("dataset", ID)
    assert (files["data/ben.parquet"], files["notes/b.txt"]) == (b"of ben", b"meanwhile")
    assert [found.status for found in api.get_repo_discussions(ID, repo_type="dataset")] == ["merged"]


def test_a_static_space_is_filled_and_its_page_served(hub: Hub) -> None:
    api = HfApi()
    api.create_repo("ada/page", repo_type="space", space_sdk="static", private=True)
    files = {"README.md": b"---\ntitle: A page\nsdk: static\n---\n", "index.html": b"<p>Page</p>", "data/a.json": b"{}"}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit("ada/page", operations, commit_message="page", repo_type="space")
    info = api.repo_info("ada/page", repo_type="space")
    assert (info.sdk, info.private) == ("static", True)
    for path, kind in (("", "text/html"), ("index.html", "text/html"), ("data/a.json", "application/json")):
        answer = httpx2.get(f"{info.host}{path}", headers={"Authorization": "Bearer hf_ada_write"})
        assert answer.content == files[path or "index.html"] and answer.headers["Content-Type"].startswith(kind)
    assert httpx2.get(f"{info.host}nothing.js", headers={"Authorization": "Bearer hf_ada_write"}).status_code == 404
    assert httpx2.get(f"{info.host}index.html").status_code == 401
    with pytest.raises(HfHubHTTPError, match="Only static Spaces"):
        api.create_repo("ada/other", repo_type="space", space_sdk="gradio")


def test_errors_are_those_that_clients_know(api: HfApi, hub: Hub) -> None:
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(ID, "nothing.txt", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(ID, "notes/a.txt", repo_type="dataset", revision="nowhere")
    for client in (HfApi(token="hf_ben_write"), HfApi(token=False)):
        with pytest.raises(RepositoryNotFoundError):
            client.repo_info("ada/nothing", repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(ID, repo_type="dataset")
    api.delete_repo(ID, repo_type="dataset")
    assert not api.repo_exists(ID, repo_type="dataset")


def test_a_private_repository_is_not_there_for_others(api: HfApi, hub: Hub) -> None:
    ben, cy = HfApi(token="hf_ben_write"), HfApi(token="hf_cy_read")
    assert ben.repo_exists(ID, repo_type="dataset")
    api.update_repo_settings(ID, repo_type="dataset", visibility="private")
    assert api.repo_info(ID, repo_type="dataset").private
    for other in (ben, cy, HfApi(token=False)):
        assert not other.repo_exists(ID, repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="403"):
        cy.create_repo("cy/mine", repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_nobody").whoami()
