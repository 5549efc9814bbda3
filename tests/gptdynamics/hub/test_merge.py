"""What a push adds to a repository, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.exchange import import_release
from gptdynamics.hub.push import PushOptions, push
from tests.gptdynamics.exchange.authors_layout import RTE
from tests.gptdynamics.hub.pushing import ID, fetched, part_of
from tests.hub.server import Hub

IMPORTED = "ada/imported"
MANIFEST = "manifests/rte_410m.json"


def test_only_new_runs_go_up_and_the_card_is_of_all(
    hub: Hub, first: Path, second: Path, collected_once: Path, tmp_path: Path
) -> None:
    push(first, ID)
    hub.faults.clear()
    pushed = push(second, ID)
    assert pushed.runs == ["rte_tiny/0004", "rte_tiny/0005"]
    assert pushed.files == [
        "README.md",
        "data/rte_tiny/test-0004.parquet",
        "data/rte_tiny/train-0005.parquet",
        "data/rte_tiny_runs/test-0004.parquet",
        "data/rte_tiny_runs/train-0005.parquet",
    ]
    whole = part_of(collected_once, tmp_path / "whole", *(f"000{at}" for at in range(6)))
    card = (whole / "README.md").read_text().replace('"path/to/this/folder"', f'"{ID}"')
    files = hub.store.files("dataset", ID)
    assert files["README.md"].decode() == card
    assert files["trajectories.svg"] == (whole / "trajectories.svg").read_bytes()
    again = push(whole, ID)
    assert (again.files, again.runs, again.url) == ([], [], None)
    assert len(hub.store.history("dataset", ID)) == 3


def test_what_somebody_wrote_into_the_card_is_kept(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    card = hub.store.files("dataset", ID)["README.md"].decode()
    edited = card.replace("pretty_name: GPTDynamics\nlicense: other\n", "pretty_name: Ours\nlicense: mit\n", 1)
    edited = edited.replace("tags:\n", "tags:\n- mine\n", 1)
    edited = (
        edited.replace("\n<!-- gptdynamics: gen", "\nA word before.\n\n<!-- gptdynamics: gen", 1) + "\nAnd after.\n"
    )
    hub.store.put("dataset", ID, {"README.md": edited.encode(), "notes.txt": b"kept"})
    push(second, ID)
    files = hub.store.files("dataset", ID)
    new = files["README.md"].decode()
    assert files["notes.txt"] == b"kept"
    for kept in ("pretty_name: Ours", "license: mit", "- mine", "- training-dynamics", "A word before.", "And after."):
        assert kept in new
    assert "| 4 / 1 / 1 / 0 |" in new and "| 3 / 1 / 0 / 0 |" not in new
    assert new.count("# GPTDynamics") == 1 and "split: test\n" in new
    assert push(second, ID).files == []


def test_a_card_whose_yaml_is_broken_is_left_alone(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    hub.store.put("dataset", ID, {"README.md": b"---\nconfigs: [\n---\nmine\n"})
    before = hub.store.files("dataset", ID)
    with pytest.raises(DataError, match=r"ada/dynamics: README.md: its YAML cannot be read .*Correct it by hand"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before


def test_runs_made_with_other_settings_are_refused(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    manifest = second / "manifests" / "rte_tiny.json"
    changed = json.loads(manifest.read_text())
    changed["settings"]["seed"] = 5
    manifest.write_text(json.dumps(changed))
    before = hub.store.files("dataset", ID)
    with pytest.raises(SettingsError, match=r"has rte_tiny made with other settings \(seed: 0 there, 5 here\)"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before


def test_other_numbers_of_the_same_run_are_refused_unless_they_replace_it(hub: Hub, first: Path) -> None:
    push(first, ID)
    path = DatasetFolder(first).run_path("rte_tiny", "0001")
    table = read_parquet(path)
    losses = [[value * 2 for value in row] for row in table["loss"].to_pylist()]
    column = pa.array(losses, table.schema.field("loss").type)
    write_parquet(table.set_column(table.column_names.index("loss"), "loss", column), path)
    with pytest.raises(SettingsError, match=r"has other values for rte_tiny/0001, .* or give --replace"):
        push(first, ID)
    assert push(first, ID, PushOptions(replace=True)).runs == ["rte_tiny/0001"]
    assert hub.store.files("dataset", ID)["data/rte_tiny/train-0001.parquet"] == path.read_bytes()


def test_other_examples_are_refused(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    path = second / "data" / "rte_examples" / "pool.parquet"
    table = read_parquet(path)
    prompts = pa.array(["another text", *table["prompt"].to_pylist()[1:]])
    write_parquet(table.set_column(table.column_names.index("prompt"), "prompt", prompts), path)
    with pytest.raises(SettingsError, match=r"example 0 of data/rte_examples/pool.parquet differs there"):
        push(second, ID)


def test_texts_can_be_left_out(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID, PushOptions(no_texts=True))
    prompts = read_dynamics(ID, "rte_tiny", "loss").pool
    assert {example.prompt for example in prompts} == {""}
    push(second, ID, PushOptions(no_texts=True))
    assert {example.prompt for example in read_dynamics(ID, "rte_tiny", "loss").pool} == {""}


@pytest.mark.parametrize("content", [b"not parquet", b""])
def test_a_damaged_run_is_not_pushed(hub: Hub, first: Path, content: bytes) -> None:
    DatasetFolder(first).run_path("rte_tiny", "0002").write_bytes(content)
    with pytest.raises(DataError, match=r"train-0002.parquet.*cannot be read as Parquet"):
        push(first, ID)
    assert set(hub.store.files("dataset", ID)) == {".gitattributes"}


def test_a_damaged_file_on_the_hub_is_named(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    hub.store.put("dataset", ID, {"data/rte_tiny/train-0000.parquet": b"something else"})
    before = hub.store.files("dataset", ID)
    with pytest.raises(DataError, match=r"train-0000.parquet: cannot be read as Parquet"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before


def test_names_that_lead_out_of_a_folder_are_not_followed(hub: Hub, first: Path, second: Path, tmp_path: Path) -> None:
    push(first, ID)
    hub.store.put(
        "dataset", ID, {"data/../../../evil-0000.parquet": b"x", "data/rte_tiny_runs/../../train-0009.parquet": b"x"}
    )
    push(second, ID)
    assert not list(tmp_path.rglob("*evil*"))
    with pytest.raises(DataError, match=r"cannot contain a '\.\.' path segment"):
        read_dynamics(ID, "rte_tiny", "loss")
    assert not list(tmp_path.rglob("*evil*"))


def test_runs_that_were_imported_later_join_the_others(hub: Hub, release: Path, tmp_path: Path) -> None:
    out, away = tmp_path / "dataset", tmp_path / "away"
    (release / RTE.format(4)).rename(away)
    import_release(release, out)
    push(out, IMPORTED)
    fewer = Path(shutil.copytree(out, tmp_path / "fewer"))
    away.rename(release / RTE.format(4))
    import_release(release, out)
    pushed = push(out, IMPORTED)
    assert pushed.runs == ["rte_410m/0006"]
    whole = json.loads((out / MANIFEST).read_text())["origin"]
    # Who has fewer runs takes nothing away.
    push(fewer, IMPORTED)
    copy = fetched(hub, tmp_path / "copy", IMPORTED)
    assert json.loads((copy / MANIFEST).read_text())["origin"] == whole
    assert verify(copy).faults == []


def test_another_origin_of_the_same_run_is_refused(hub: Hub, release: Path, tmp_path: Path) -> None:
    import_release(release, tmp_path / "dataset")
    push(tmp_path / "dataset", IMPORTED)
    path = tmp_path / "dataset" / MANIFEST
    manifest = json.loads(path.read_text())
    name = next(iter(manifest["origin"]["runs"]))
    manifest["origin"]["runs"][name]["folder"] = "elsewhere"
    path.write_text(json.dumps(manifest))
    with pytest.raises(SettingsError, match=f"run {name}: .*elsewhere.* here"):
        push(tmp_path / "dataset", IMPORTED)
