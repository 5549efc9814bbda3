"""Whatever happens to a file is noticed or harmless, and never an error of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdynamics.configs import RunSettings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from tests.gptdynamics.dataset.verify.conftest import with_runs
from tests.gptdynamics.dataset.verify.damage import MANIFEST, ROW, at, column, manifest, write


@pytest.fixture(scope="module")
def small(with_gradients: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder with a test run and an unseen one of the mixture, pages checksummed, and the bytes of its files."""
    root = with_runs(with_gradients, tmp_path_factory.mktemp("small") / "dataset", ("0004", "u0000"))
    for task in ("rte", "webnlg"):
        for path in [*root.glob(f"data/{task}_*"), root / "sidecar" / f"{task}_tiny"]:
            shutil.rmtree(path)
        (root / "manifests" / f"{task}_tiny.json").unlink()
    DatasetFolder(root).write_card()
    whole = {}
    for path in sorted(root.glob("data/*/*.parquet")):
        checksummed(path)
        whole[path.relative_to(root).as_posix()] = path.read_bytes()
    return root, whole


def checksummed(path: Path) -> None:
    """Write a file again as it is, with a checksum in each page."""
    table = read_parquet(path)
    floats = [f"{field.name}.list.element" for field in table.schema if field.type == pa.list_(pa.float32())]
    flat = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=1000,
        write_page_index=True,
        use_content_defined_chunking=True,
        use_dictionary=flat,
        use_byte_stream_split=floats,
        write_page_checksum=True,
    )


@given(data=st.data())
def test_any_damage_to_a_file_is_noticed_or_harmless(small: tuple[Path, dict[str, bytes]], data: st.DataObject) -> None:
    root, whole = small
    name = data.draw(st.sampled_from(sorted(whole)))
    before = whole[name]
    if data.draw(st.booleans(), label="truncate"):
        after = before[: data.draw(st.integers(0, len(before) - 1))]
    else:
        start = data.draw(st.integers(0, len(before) - 1))
        new = data.draw(st.binary(min_size=1, max_size=min(40, len(before) - start)))
        after = before[:start] + new + before[start + len(new) :]
    path = root / name
    try:
        path.write_bytes(after)
        found = verify(root)
        if found.ok:
            assert read_parquet(path).equals(pq.read_table(pa.BufferReader(before)))
        else:
            assert {fault.file for fault in found.faults} == {name}
    finally:
        path.write_bytes(before)


def test_the_undamaged_small_folder_is_sound(small: tuple[Path, dict[str, bytes]]) -> None:
    root, whole = small
    found = verify(root)
    assert (found.faults, found.runs, len(whole)) == ([], 2, 8)


@given(
    text=st.one_of(st.text(max_size=60), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)),
    part=st.sampled_from(["manifest", "card", "timing", "failed"]),
)
@settings(max_examples=30)
def test_any_text_in_a_file_of_settings_is_survived(small: tuple[Path, dict[str, bytes]], text: str, part: str) -> None:
    root, _ = small
    folder = DatasetFolder(root)
    path = {
        "manifest": folder.manifest_path("flan_tiny"),
        "card": root / "README.md",
        "timing": folder.sidecar_path("flan_tiny", "0004", "timing"),
        "failed": folder.sidecar_path("flan_tiny", "0009", "failed"),
    }[part]
    before = path.read_bytes() if path.exists() else None
    try:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        assert {fault.file for fault in verify(root).faults} <= {path.relative_to(root).as_posix()}
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"settings": ' * 100_000])
def test_json_that_never_ends_is_a_fault(few: Path, deep: str) -> None:
    write(deep)(few / MANIFEST)
    write(deep)(few / "sidecar/rte_tiny/0001.timing.json")
    column("versions", at(0, deep))(few / ROW)
    assert sorted(fault.file for fault in verify(few).faults) == [ROW, MANIFEST, "sidecar/rte_tiny/0001.timing.json"]


@pytest.mark.parametrize("name", RunSettings("rte_nano", 1.0).to_dict())
def test_no_manifest_makes_it_stumble(few_once: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "manifests").mkdir()
    for folder in ("data/rte_tiny", "data/rte_tiny_runs", "data/rte_examples"):
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        (tmp_path / folder).symlink_to(few_once / folder)
    for value in (None, -1, 0, 10**30, "x", [], True):
        shutil.copy(few_once / MANIFEST, tmp_path / MANIFEST)
        manifest(**{name: value})(tmp_path / MANIFEST)
        assert verify(tmp_path).runs == 3, value
