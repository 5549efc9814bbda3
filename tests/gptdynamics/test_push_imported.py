"""Pushing runs that were imported from the authors' layout, some now and some later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gptdynamics.dataset.verify import verify
from gptdynamics.errors import SettingsError
from gptdynamics.exchange import import_release
from gptdynamics.hub.push import push
from tests.gptdynamics.exchange.authors_layout import RTE
from tests.gptdynamics.test_push import fetched
from tests.hub.server import Hub

ID = "ada/imported"
MANIFEST = "manifests/rte_410m.json"


def test_runs_that_were_imported_later_join_the_others(hub: Hub, release: Path, tmp_path: Path) -> None:
    out, away = tmp_path / "dataset", tmp_path / "away"
    (release / RTE.format(4)).rename(away)
    import_release(release, out)
    push(out, ID)
    fewer = Path(shutil.copytree(out, tmp_path / "fewer"))
    away.rename(release / RTE.format(4))
    import_release(release, out)
    pushed = push(out, ID)
    assert pushed.runs == ["rte_410m/0006"]
    whole = json.loads((out / MANIFEST).read_text())["origin"]
    # Who has fewer runs takes nothing away.
    push(fewer, ID)
    copy = fetched(hub, tmp_path / "copy", ID)
    assert json.loads((copy / MANIFEST).read_text())["origin"] == whole
    assert verify(copy).faults == []


def test_another_origin_of_the_same_run_is_refused(hub: Hub, release: Path, tmp_path: Path) -> None:
    import_release(release, tmp_path / "dataset")
    push(tmp_path / "dataset", ID)
    path = tmp_path / "dataset" / MANIFEST
    manifest = json.loads(path.read_text())
    name = next(iter(manifest["origin"]["runs"]))
    manifest["origin"]["runs"][name]["folder"] = "elsewhere"
    path.write_text(json.dumps(manifest))
    with pytest.raises(SettingsError, match=f"run {name}: .*elsewhere.* here"):
        push(tmp_path / "dataset", ID)
