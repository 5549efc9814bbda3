from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdynamics.atomic import write_text
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum, linear_decay
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.dataset.verify import Fault, verify, verify_run
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.plans import PlanEntry
from gptdynamics.runs import Run
from gptdynamics.runs.gradient_record import product_steps

Edit = Callable[[list[Any]], list[Any]]


def with_runs(root: Path, out: Path, runs: tuple[str, ...]) -> Path:
    """A copy of a folder with only some of its runs."""
    shutil.copytree(root, out)
    for path in [*out.glob("data/*/*-*.parquet"), *out.glob("sidecar/*/*.json")]:
        if path.name.split("-")[-1].split(".")[0] not in runs:
            path.unlink()
    DatasetFolder(out).write_card()
    return out


@pytest.fixture(scope="module")
def few_once(collected_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_runs(collected_once, tmp_path_factory.mktemp("few") / "dataset", ("0000", "0001", "0004"))


@pytest.fixture
def few(few_once: Path, tmp_path: Path) -> Path:
    """Three runs of a label and of a generation config, for one test to change."""
    return Path(shutil.copytree(few_once, tmp_path / "dataset"))


@pytest.fixture(scope="module")
def gradients_once(with_gradients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_runs(with_gradients, tmp_path_factory.mktemp("gradients") / "dataset", ("0001", "0004", "u0000"))


@pytest.fixture
def gradients(gradients_once: Path, tmp_path: Path) -> Path:
    """Runs with gradients, on unseen rows and of a mixture, for one test to change."""
    return Path(shutil.copytree(gradients_once, tmp_path / "dataset"))


def column(name: str, edit: Edit) -> Callable[[Path], None]:
    """Damage: a column's values are edited, the file stays a sound Parquet file of the same schema."""

    def damage(path: Path) -> None:
        table = read_parquet(path)
        values = pa.array(edit(table[name].to_pylist()), table.schema.field(name).type)
        write_parquet(table.set_column(table.schema.names.index(name), name, values), path)

    return damage


def at(place: int, value: Any) -> Edit:
    """The value at a place becomes another."""
    return lambda values: [*values[:place], value, *values[place + 1 :]]


def inside(row: int, place: int, value: Any) -> Edit:
    """A number in the list of a row becomes another."""

    def edit(values: list[Any]) -> list[Any]:
        values[row][place] = value
        return values

    return edit


def rows(edit: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Damage: the whole table becomes another."""
    return lambda path: write_parquet(edit(read_parquet(path)), path)


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def write(text: str) -> Callable[[Path], None]:
    return lambda path: write_text(path, text)


def manifest(**changes: Any) -> Callable[[Path], None]:
    """Damage: entries of a manifest, or of its settings, become others."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            (content["settings"] if name in content["settings"] else content)[name] = value
        write_text(path, json.dumps(content))

    return damage


def replace(old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        write_text(path, text.replace(old, new))

    return damage


def same_batches_swapped(values: list[Any]) -> list[Any]:
    return [[values[0][1], values[0][0], *values[0][2:]]]


class Case(NamedTuple):
    """A damaged file, and the fault that must be named for it: in this file, there, like this."""

    folder: str
    file: str
    damage: Callable[[Path], None]
    where: str
    what: str
    named: str | None = None
    unlisted: str | None = None

    @property
    def faults(self) -> list[tuple[str, str]]:
        """File and place of every fault; the card, too, where the damage leaves `unlisted` other than it says."""
        card = [("README.md", f"configuration {self.unlisted}")] if self.unlisted else []
        return [(self.named or self.file, self.where), *card]


RUN, ROW = "data/rte_tiny/test-0004.parquet", "data/rte_tiny_runs/test-0004.parquet"
OTHER_RUN, OTHER_ROW = "data/rte_tiny/train-0001.parquet", "data/rte_tiny_runs/train-0001.parquet"
TEXTS, MIXED = "data/webnlg_tiny/train-0001.parquet", "data/flan_tiny/test-0004.parquet"
PRODUCTS, VECTORS = "data/flan_tiny_gradients/test-0004.parquet", "data/rte_tiny_gradients/base.parquet"
POOL, TEST = "data/rte_examples/pool.parquet", "data/webnlg_examples/test.parquet"
MANIFEST = "manifests/rte_tiny.json"

CASES = {
    # Trajectories
    "truncated": Case("few", RUN, truncate, "", "cannot be read as Parquet (Parquet magic bytes not found"),
    "empty file": Case("few", RUN, lambda path: path.write_bytes(b""), "", "cannot be read as Parquet (Parquet"),
    "no rows": Case("few", RUN, rows(lambda table: table.slice(0, 0)), "", "it has no rows"),
    "row lost": Case("few", RUN, rows(lambda table: table.slice(0, 4)), "test_id", "4 missing"),
    "row twice": Case("few", RUN, column("test_id", at(3, 2)), "test_id", "2 more than once; 3 missing"),
    "row unknown": Case("few", RUN, column("test_id", at(4, 9)), "test_id", "4 missing; 9 unknown (there are 0 to 4)"),
    "rows moved": Case(
        "few", RUN, rows(lambda table: table.take([1, 0, 2, 3, 4])), "test_id", "not in ascending order"
    ),
    "row of another run": Case(
        "few", RUN, column("run", at(2, "0005")), "run", "rows of run 0005, where its file's name says 0004"
    ),
    "column lost": Case("few", RUN, rows(lambda table: table.drop(["accuracy"])), "accuracy", "the column is missing"),
    "column too many": Case(
        "few",
        RUN,
        rows(lambda table: table.append_column("bleu", table["loss"])),
        "bleu",
        "there should be no such column",
    ),
    "column of another type": Case(
        "few",
        RUN,
        rows(lambda table: table.set_column(1, "test_id", table["test_id"].cast(pa.int64()))),
        "test_id",
        "the column is int64, not int32",
    ),
    "steps not from 0": Case(
        "few", RUN, column("step", at(1, [1, 2, 3])), "step", "test example 1: its steps begin at 1, not 0"
    ),
    "steps not increasing": Case(
        "few",
        RUN,
        column("step", at(1, [0, 2, 2])),
        "step",
        "test example 1: its steps do not increase: 2 comes after 2",
    ),
    "steps cut short": Case(
        "few",
        RUN,
        column("step", lambda values: [[0, 1]] * 5),
        "step",
        "test example 0 and 4 more: its steps end at 1, the run has 2 updates",
    ),
    "a step not measured": Case(
        "few", RUN, column("step", at(2, [0, 2])), "step", "test example 2: it has 2 steps, the settings make 3"
    ),
    "steps null": Case("few", RUN, column("step", at(4, None)), "step", "test example 4: there are no steps"),
    "loss not a number": Case(
        "few",
        RUN,
        column("loss", inside(3, 1, float("nan"))),
        "loss",
        "test example 3, step 1: nan is not a finite number",
    ),
    "loss infinite": Case(
        "few",
        RUN,
        column("loss", lambda values: [values[0], *[[1.0, float("inf"), 1.0]] * 4]),
        "loss",
        "test example 1, step 1: inf is not a finite number (and 3 more)",
    ),
    "loss with a hole": Case(
        "few",
        RUN,
        column("loss", inside(0, 2, None)),
        "loss",
        "test example 0, step 2: nan is not a finite number",
    ),
    "loss below 0": Case(
        "few", RUN, column("loss", inside(0, 2, -0.5)), "loss", "test example 0, step 2: -0.5 is not 0 or more"
    ),
    "loss of too few steps": Case(
        "few", RUN, column("loss", at(1, [1.0, 1.0])), "loss", "test example 1: it has 2 values for 3 steps"
    ),
    "loss null": Case("few", RUN, column("loss", at(1, None)), "loss", "test example 1: there are no values"),
    "half right": Case(
        "few", RUN, column("accuracy", inside(2, 0, 0.5)), "accuracy", "test example 2, step 0: 0.5 is not 0 or 1"
    ),
    "bleu above 100": Case(
        "few", TEXTS, column("bleu", inside(2, 1, 100.5)), "bleu", "test example 2, step 1: 100.5 is not 0 to 100"
    ),
    "rougeL in percent": Case(
        "few", TEXTS, column("rougeL", inside(4, 1, 42.0)), "rougeL", "test example 4, step 1: 42 is not 0 to 1"
    ),
    "texts at other steps": Case(
        "few",
        TEXTS,
        column("generation_step", at(0, [0, 2, 3])),
        "generation_step",
        "test example 0: its steps end at 3, the run has 2 updates",
    ),
    "bleu of a label": Case(
        "gradients",
        MIXED,
        column("bleu", at(0, [0.0] * 4)),
        "bleu",
        "test example 0: there are values, but this metric is not followed for it",
    ),
    "accuracy of a label lost": Case(
        "gradients", MIXED, column("accuracy", at(1, None)), "accuracy", "test example 1: there are no values"
    ),
    "task of another example": Case(
        "gradients", MIXED, column("task", at(1, "rte")), "task", "test example 1: 'rte', where its id says 'sst2'"
    ),
    "grad_dot infinite": Case(
        "gradients",
        MIXED,
        column("grad_dot", inside(2, 0, float("-inf"))),
        "grad_dot",
        "test example 2, step 1: -inf is not a finite number",
    ),
    "grad_dot lost": Case(
        "gradients",
        MIXED,
        column("grad_dot", lambda values: [None] * 15),
        "grad_dot",
        "test example 0 and 14 more: there are no values",
    ),
    "grad_dot where none is recorded": Case(
        "gradients",
        "data/rte_tiny/test_unseen-u0000.parquet",
        column("update_dot", at(1, [0.0, 0.0])),
        "update_dot",
        "test example 1: has values, but the settings record none for this run",
    ),
    # Rows of runs
    "row truncated": Case("few", ROW, truncate, "", "cannot be read as Parquet (Parquet magic bytes not found"),
    "two rows": Case(
        "few", ROW, rows(lambda table: pa.concat_tables([table, table])), "", "it has 2 rows; a run has one"
    ),
    "seed": Case("few", ROW, column("seed", at(0, 7)), "seed", "7, where the manifest of rte_tiny says 0"),
    "peak rate": Case(
        "few",
        ROW,
        column("peak_learning_rate", at(0, 0.1)),
        "peak_learning_rate",
        "0.1, where the manifest of rte_tiny says 0.001",
    ),
    "run": Case("few", ROW, column("run", at(0, "0005")), "run", "'0005', where its file's name says '0004'"),
    "no base model": Case("few", ROW, column("base_model", at(0, None)), "base_model", "it is empty"),
    "versions": Case("few", ROW, column("versions", at(0, "[]")), "versions", "not a JSON object"),
    "too few batches": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [values[0][:1]]),
        "curriculum",
        "it has 1 batches, the settings make 2",
    ),
    "batch too small": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [[values[0][0], values[0][1][:3]]]),
        "curriculum",
        "batch 1 has 3 ids, batch_size is 4",
    ),
    "id beyond the pool": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [[[99, *values[0][0][1:]], values[0][1]]]),
        "curriculum",
        "batch 0 has id 99, the pool are 0 to 11",
    ),
    "pool id in an unseen run": Case(
        "gradients",
        "data/rte_tiny_runs/test_unseen-u0000.parquet",
        column("curriculum", lambda values: [[[3, *values[0][0][1:]], values[0][1]]]),
        "curriculum",
        "batch 0 has id 3, the pool rows kept for unseen runs are 12 to 23",
    ),
    "batches twice": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [[[4, 6, 3, 11], [4, 6, 3, 11]]]),
        "curriculum",
        "3, 4, 6 and 1 more occur more than once in epoch 0",
    ),
    "batches in another order": Case(
        "few",
        ROW,
        column("curriculum", same_batches_swapped),
        "curriculum",
        "batch 0 is not the one that seed 0 draws for run 0004",
    ),
    "no curriculum": Case("few", ROW, column("curriculum", at(0, None)), "curriculum", "there is none"),
    "rates": Case(
        "few",
        ROW,
        column("learning_rate", inside(0, 1, 1e-3)),
        "learning_rate",
        "the rate of update 2 is 0.001, linear decay makes it 0.0005",
    ),
    "too few rates": Case(
        "few", ROW, column("learning_rate", at(0, [1e-3])), "learning_rate", "it has 1 rates for 2 updates"
    ),
    # Gradients
    "products lost": Case(
        "gradients",
        PRODUCTS,
        delete,
        "",
        "gradients = 'test' records products for run 0004, and there are none",
        None,
        "flan_tiny_gradients",
    ),
    "products of a step lost": Case(
        "gradients",
        PRODUCTS,
        rows(lambda table: table.slice(24)),
        "",
        "it has 72 rows, not 4 steps (0, 1, 2, 3) x 24 pool examples",
    ),
    "products of another example": Case(
        "gradients",
        PRODUCTS,
        column("id", at(1, 0)),
        "step, id",
        "row 1: step 0, id 0, where 4 steps (0, 1, 2, 3) x 24 pool examples have step 0, id 1",
    ),
    "product not a number": Case(
        "gradients",
        PRODUCTS,
        column("products", inside(30, 7, float("nan"))),
        "products",
        "row 30, place 7: nan is not a finite number",
    ),
    "a product too few": Case(
        "gradients",
        PRODUCTS,
        column("products", at(3, [1.0] * 14)),
        "products",
        "row 3: its numbers are not as many as the 15 test examples",
    ),
    "products of the test set": Case(
        "gradients", PRODUCTS, column("part", at(3, "test")), "part", "row 3: 'test', not 'pool'"
    ),
    "products nobody asked for": Case(
        "gradients",
        PRODUCTS,
        lambda path: shutil.copy(path, path.with_name("train-0001.parquet")),
        "",
        "gradients = 'test' records none for run 0001",
        "data/flan_tiny_gradients/train-0001.parquet",
        "flan_tiny_gradients",
    ),
    "vectors truncated": Case(
        "gradients", VECTORS, truncate, "", "cannot be read as Parquet (Parquet magic bytes not found"
    ),
    "vector lost": Case("gradients", VECTORS, rows(lambda table: table.slice(1)), "id of part pool", "0 missing"),
    "unseen vectors lost": Case(
        "gradients",
        VECTORS,
        rows(lambda table: pa.concat_tables([table.slice(0, 13), table.slice(24)])),
        "id of part pool",
        "13, 14, 15 and 8 more missing",
    ),
    "vector too wide": Case(
        "gradients",
        VECTORS,
        column("vector", at(2, [0.0] * 17)),
        "vector",
        "row 2: its numbers are not as many as the 16 coordinates",
    ),
    "vector infinite": Case(
        "gradients",
        VECTORS,
        column("vector", inside(4, 4, float("inf"))),
        "vector",
        "row 4, place 4: inf is not a finite number",
    ),
    "vectors of another projection": Case(
        "gradients",
        VECTORS,
        column("projection_seed", lambda values: [1] * len(values)),
        "projection_seed",
        "row 0 and 28 rows more: 1, not 0",
    ),
    # Examples
    "example lost": Case("few", POOL, rows(lambda table: table.slice(0, 11)), "id", "it ends at 10, and runs of"),
    "example twice": Case("few", POOL, column("id", at(5, 4)), "id", "4 more than once; 5 missing"),
    "examples lost": Case(
        "few", TEST, delete, "", "there is no such file, and runs of webnlg_tiny need it", None, "webnlg_examples"
    ),
    "no prompt": Case("few", POOL, column("prompt", at(3, "")), "prompt", "example 3: it is empty"),
    "prompt alone withheld": Case(
        "few", TEST, column("prompt", at(3, None)), "prompt", "example 3: it is null, but other texts are not"
    ),
    "not a label": Case(
        "few",
        POOL,
        column("target", at(3, " maybe")),
        "target",
        "example 3: ' maybe' is not one of ' yes', ' no'",
    ),
    "references lost": Case(
        "few",
        TEST,
        column("references", lambda values: [[]] * 5),
        "references",
        "example 0 and 4 more: there are none",
    ),
    "example of another task": Case(
        "few", TEST, column("task", at(0, "rte")), "task", "example 0: 'rte', not 'webnlg'"
    ),
    "source": Case("few", TEST, column("source", at(2, "row 7")), "source", "example 2: not a JSON object"),
    # Whole files
    "trajectories lost": Case(
        "few", OTHER_RUN, delete, "", "run 0001 has no trajectories: its collection was cut", OTHER_ROW
    ),
    "row lost as a file": Case(
        "few", OTHER_ROW, delete, "", "run 0001 has no row: its collection was cut short", OTHER_RUN
    ),
    "file of another split": Case(
        "few",
        OTHER_RUN,
        lambda path: path.rename(path.with_name("test-0001.parquet")),
        "",
        "run 0001 is of split train, not test",
        "data/rte_tiny/test-0001.parquet",
    ),
    "file of no run": Case(
        "few",
        RUN,
        lambda path: shutil.copy(path, path.with_name("test-copy.parquet")),
        "",
        "not named <split>-<run>.parquet",
        "data/rte_tiny/test-copy.parquet",
    ),
    "stray file": Case("few", "data/notes.txt", write("?"), "", "belongs to no config and no task"),
    "stray example file": Case(
        "few",
        "data/rte_examples/notes.txt",
        write("?"),
        "",
        "examples are in pool.parquet and test.parquet only",
    ),
    "foreign temporary file": Case(
        "few", "data/rte_tiny/.x.tmp", write("?"), "", "a temporary file of another program"
    ),
    "failed with numbers": Case(
        "few",
        "sidecar/rte_tiny/0001.failed.json",
        write('{"run": "0001", "reason": "nan"}'),
        "",
        "run 0001 is recorded as failed, but it has numbers",
    ),
    "reason lost": Case("few", "sidecar/rte_tiny/0007.failed.json", write("{"), "", "not a JSON object"),
    # Manifests
    "manifest lost": Case("few", MANIFEST, delete, "", "there is no manifest of this config"),
    "manifest truncated": Case("few", MANIFEST, truncate, "", "not a JSON object"),
    "setting out of range": Case(
        "few", MANIFEST, manifest(subset=40), "settings", "subset=40 is larger than pool_size=12"
    ),
    "setting of another type": Case(
        "few", MANIFEST, manifest(epochs="3"), "settings", "epochs = '3' is not of type int"
    ),
    "settings of another config": Case(
        "few",
        MANIFEST,
        manifest(config="rte_nano"),
        "settings",
        "config = 'rte_nano', but the manifest is named for rte_tiny",
    ),
    "absurd setting": Case("few", MANIFEST, manifest(pool_size=10**12), "settings", "pool_size = 1000000000000 is"),
    "negative seed": Case("few", MANIFEST, manifest(seed=-1), "settings", "seed = -1 must be at least 0"),
    "planned": Case("few", MANIFEST, manifest(planned={"runs": -1}), "planned", "{'runs': -1} does not say how"),
    "revision": Case("few", MANIFEST, manifest(base_revision=None), "base_revision", "None does not identify a"),
    "manifest of nothing": Case("few", "manifests/notes.json", write("{}"), "", "not named for a config"),
    # Card
    "card lost": Case("few", "README.md", delete, "", "there is no card: load_dataset would not find"),
    "card without YAML": Case("few", "README.md", write("# Title\n"), "", "its YAML lists no configurations"),
    "card with broken YAML": Case(
        "few", "README.md", write("---\nconfigs: [\n---\n"), "", "its YAML cannot be read (while parsing"
    ),
    "card without a split": Case(
        "few",
        "README.md",
        replace("  - split: test\n    path: data/rte_tiny/test-*.parquet\n", ""),
        "configuration rte_tiny",
        "split test is not listed",
    ),
    "card with another glob": Case(
        "few",
        "README.md",
        replace("data/rte_tiny/test-*", "data/rte_tiny/train-*"),
        "configuration rte_tiny",
        "split test is 'data/rte_tiny/train-*.parquet', not 'data/rte_tiny/test-*.parquet'",
    ),
    "card with a configuration too many": Case(
        "few",
        "README.md",
        replace("configs:\n", "configs:\n- config_name: x_y\n  data_files:\n  - split: train\n    path: x\n"),
        "configuration x_y",
        "it is listed, but not there",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_fault_is_named_once_with_its_file_and_place(case: Case, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(case.folder)
    case.damage(root / case.file)
    found = verify(root)
    assert not found.ok
    assert [(fault.file, fault.where) for fault in found.faults] == case.faults
    assert found.faults[0].what.startswith(case.what)
    assert found.faults[0].remedy


def test_every_fault_is_named(gradients: Path) -> None:
    chosen = (
        *("bleu of a label", "grad_dot infinite", "product not a number", "products nobody asked for", "stray file"),
        *("vector infinite", "grad_dot where none is recorded", "pool id in an unseen run", "not a label", "rates"),
        *("seed", "versions", "no prompt", "example twice", "loss infinite", "card without a split"),
    )
    cases = [CASES[name] for name in chosen]
    for case in cases:
        case.damage(gradients / case.file)
    found = {(fault.file, fault.where): fault.what for fault in verify(gradients).faults}
    assert found.keys() == {fault for case in cases for fault in case.faults}
    for case in cases:
        assert found[case.faults[0]].startswith(case.what)


def test_a_fault_is_one_line() -> None:
    fault = Fault("data/rte_tiny/train-0000.parquet", "loss", "nan", "Delete it")
    assert str(fault) == "data/rte_tiny/train-0000.parquet: loss: nan. Delete it"
    assert str(Fault("README.md", "", "lost", "Restore it")) == "README.md: lost. Restore it"


def test_a_sound_folder_has_no_faults(collected_once: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = verify(collected_once, lambda done, total: seen.append((done, total)))
    assert (found.faults, found.missing, found.failed, found.running) == ([], {}, {}, [])
    assert (found.ok, found.configs, found.runs) == (True, ["rte_tiny", "webnlg_tiny"], 12)
    assert found.rows == 2 * (6 * (5 + 1) + 12 + 5)
    assert seen == [(done, 12) for done in range(1, 13)]
    assert found.summary() == [f"{collected_once}: 2 configs, 12 runs, 106 rows checked: no faults"]


def test_a_folder_with_gradients_unseen_runs_and_a_mixture_has_no_faults(with_gradients: Path) -> None:
    found = verify(with_gradients)
    assert (found.faults, found.missing, found.runs) == ([], {}, 20)


def test_a_release_without_texts_has_no_faults(with_gradients: Path, tmp_path: Path) -> None:
    copy_without_texts(with_gradients, tmp_path / "release")
    found = verify(tmp_path / "release")
    assert (found.faults, found.runs) == ([], 20)


def test_texts_withheld_without_a_source_are_a_fault(with_gradients: Path, tmp_path: Path) -> None:
    copy_without_texts(with_gradients, tmp_path / "release")
    column("source", at(4, "{}"))(tmp_path / "release" / TEST.replace("test.parquet", "pool.parquet"))
    (fault,) = verify(tmp_path / "release").faults
    assert fault.what == "example 4: no texts, and not which dataset, split and row they are"


def made_up(root: Path, asked: RunSettings, runs: int, test: list[Example], bleu: bool) -> DatasetFolder:
    """A folder of runs with random numbers, as if they had been measured as the settings say."""
    folder, rng, entry = DatasetFolder(root), np.random.default_rng(0), PlanEntry(asked, runs)
    folder.begin(entry, "0123456789ab")
    updates = asked.run_steps

    def measured(every: int) -> list[int]:
        return sorted({*range(0, updates + 1, every), updates})

    def values(count: int) -> np.ndarray:
        return rng.random((count, len(test)), dtype=np.float32)

    pool = [Example(at, "p", test[0].target, test[0].references, test[0].task) for at in asked.pool_ids]
    folder.add_examples(asked.task, "pool", pool)
    folder.add_examples(asked.task, "test", test)
    for run in entry.run_names:
        steps = measured(asked.eval_every)
        texts = measured(asked.generate_every) if bleu else []
        scores = (
            {name: values(len(texts)) for name in ("bleu", "rougeL")} if bleu else {"accuracy": values(len(steps)) > 2}
        )
        recorded = asked.follows_gradients(run)
        rates = linear_decay(asked.learning_rate, updates)
        metrics = {"loss": values(len(steps))} | {name: each.astype(np.float32) for name, each in scores.items()}
        dots = {name: values(updates) for name in ("grad_dot", "update_dot")} if recorded else {}
        products = {
            step: rng.random((len(pool), len(test)), dtype=np.float32) for step in product_steps(updates) if recorded
        }
        made = Run(run, draw_curriculum(asked, run), rates, steps, texts, metrics, dots, products)
        folder.add_run(asked, ("nano", "0123456789ab"), test, made)
    if asked.gradients != "none":
        width = asked.gradient_width
        pool_side, test_side = (rng.random((len(each), width), dtype=np.float32) for each in (pool, test))
        ids = [[example.id for example in each] for each in (pool, test)]
        folder.add_vectors(asked, (ids[0], pool_side), (ids[1], test_side))
    folder.write_card()
    return folder


@pytest.mark.parametrize("gradients", ["none", "test", "all"])
@pytest.mark.parametrize(("eval_every", "generate_every", "steps"), [(1, 4, None), (5, 3, 11), (30, 30, 23), (2, 2, 1)])
def test_every_measuring_rhythm_that_settings_can_ask_for_is_understood(
    tmp_path: Path, gradients: Any, eval_every: int, generate_every: int, steps: int | None
) -> None:
    asked = RunSettings(
        "webnlg_nano",
        3e-4,
        seed=5,
        pool_size=21,
        subset=17,
        epochs=6,
        steps=steps,
        test_examples=3,
        eval_every=eval_every,
        generate_every=generate_every,
        gradients=gradients,
        gradient_width=4,
    )
    test = [Example(at, "p", " t", (" t",), "webnlg") for at in range(3)]
    found = verify(made_up(tmp_path, asked, 6, test, bleu=True).root)
    assert (found.faults, found.missing, found.runs) == ([], {}, 6)


def test_a_run_on_the_settings_of_another_is_noticed(tmp_path: Path) -> None:
    asked = RunSettings("rte_nano", 1e-3, pool_size=12, subset=8, epochs=4, test_examples=2, eval_every=2)
    test = [Example(at, "p", " yes", (), "rte") for at in range(2)]
    folder = made_up(tmp_path / "a", asked, 1, test, bleu=False)
    other = RunSettings(**(asked.to_dict() | {"seed": 1, "eval_every": 3}))
    path = made_up(tmp_path / "b", other, 1, test, bleu=False).run_path("rte_nano", "0000")
    shutil.copy(path, folder.run_path("rte_nano", "0000"))
    assert [str(fault).split(". ")[0] for fault in verify(folder.root).faults] == [
        "data/rte_nano/train-0000.parquet: step: test example 0 and 1 more: it has 4 steps, the settings make 5",
        "data/rte_nano/train-0000.parquet: loss: test example 0 and 1 more: it has 4 values for 5 steps",
        "data/rte_nano/train-0000.parquet: accuracy: test example 0 and 1 more: it has 4 values for 5 steps",
    ]


def without_settings(root: Path, config: str) -> Path:
    manifest(settings={})(root / "manifests" / f"{config}.json")
    return root


@pytest.mark.parametrize("config", ["rte_tiny", "webnlg_tiny", "flan_tiny"])
def test_runs_recorded_elsewhere_are_checked_against_themselves(gradients: Path, config: str) -> None:
    without_settings(gradients, config)
    column("curriculum", same_batches_swapped)(gradients / f"data/{config}_runs/train-0001.parquet")
    assert verify(gradients).faults == []


@pytest.mark.parametrize(
    "name",
    [
        "steps not from 0",
        "steps not increasing",
        "steps cut short",
        "row twice",
        "loss not a number",
        "half right",
        "loss of too few steps",
        "column lost",
        "too few rates",
        "run",
        "no curriculum",
        "row truncated",
    ],
)
def test_faults_of_runs_recorded_elsewhere_are_named(few: Path, name: str) -> None:
    case = CASES[name]
    case.damage(without_settings(few, "rte_tiny") / case.file)
    assert [(fault.file, fault.where) for fault in verify(few).faults] == [(case.file, case.where)]


@pytest.mark.parametrize(
    ("file", "damage", "where", "what"),
    [
        (ROW, column("curriculum", inside(0, 1, [0, 1, 12, 2])), "curriculum", "id 12 is not one of the 12 examples"),
        (ROW, column("curriculum", inside(0, 1, [0, -1, 2])), "curriculum", "it has empty batches or ids below 0"),
        (ROW, column("learning_rate", inside(0, 1, -1.0)), "learning_rate", "rates are below 0 or not finite"),
        (RUN, column("test_id", at(4, 7)), "test_id", "7: no such test examples"),
        (RUN, column("step", lambda values: [None] * 5), "step", "it is null in every row"),
    ],
)
def test_what_runs_recorded_elsewhere_refer_to_must_be_there(
    few: Path, file: str, damage: Callable[[Path], None], where: str, what: str
) -> None:
    damage(without_settings(few, "rte_tiny") / file)
    (fault,) = verify(few).faults
    assert (fault.file, fault.where) == (file, where) and fault.what.startswith(what)


def test_a_task_that_is_not_known_is_one_fault_and_its_runs_are_checked_all_the_same(few: Path) -> None:
    for path in list(few.rglob("*webnlg*")):
        path.rename(path.with_name(path.name.replace("webnlg", "poems")))
    manifest(config="poems_tiny")(few / "manifests/poems_tiny.json")
    for run in (few / "data/poems_tiny_runs").iterdir():
        column("config", at(0, "poems_tiny"))(run)
    DatasetFolder(few).write_card()
    (unknown,) = verify(few).faults
    assert unknown.file == "manifests/poems_tiny.json"
    assert unknown.what.startswith("unknown task 'poems'; known tasks: rte, ") and "--task-file" in unknown.remedy
    column("bleu", inside(0, 0, -1.0))(few / "data/poems_tiny/train-0000.parquet")
    assert [fault.where for fault in verify(few).faults] == ["", "bleu"]


def test_what_is_planned_and_not_there_is_missing_and_no_fault(gradients: Path) -> None:
    folder = DatasetFolder(gradients)
    folder.run_path("rte_tiny", "0001").unlink()
    folder.run_row_path("rte_tiny", "0001").unlink()
    folder.vectors_path("rte_tiny").unlink()
    manifest(planned={"runs": 6, "unseen_runs": 1})(folder.manifest_path("webnlg_tiny"))
    folder.add_failure("webnlg_tiny", "0005", "loss is not finite")
    shutil.rmtree(gradients / "data/flan_tiny_gradients")
    for path in gradients.glob("data/flan_*/*"):
        path.unlink()
    folder.write_card()
    found = verify(gradients)
    assert (found.ok, found.runs) == (True, 5)
    assert found.missing == {
        "flan_tiny": ["0000", "0001", "0002", "0003", "0004", "u0000", "base"],
        "rte_tiny": ["0000", "0001", "0002", "0003", "u0001", "base"],
        "webnlg_tiny": ["0000", "0002", "0003"],
    }
    assert found.failed == {"webnlg_tiny/0005": "loss is not finite"}
    assert found.summary()[1:] == [
        "flan_tiny: planned, but not there yet: 0000, 0001, 0002, 0003, 0004, u0000 and 1 more",
        "rte_tiny: planned, but not there yet: 0000, 0001, 0002, 0003, u0001, projected gradients",
        "webnlg_tiny: planned, but not there yet: 0000, 0002, 0003",
        "webnlg_tiny/0005: diverged, so it has no numbers: loss is not finite",
    ]


def test_projected_gradients_of_a_pool_that_was_planned_later_are_missing(gradients: Path) -> None:
    rows(lambda table: pa.concat_tables([table.slice(0, 12), table.slice(24)]))(gradients / VECTORS)
    found = verify(gradients)
    assert (found.faults, found.missing["rte_tiny"][-1]) == ([], "base")


def test_what_a_live_collector_is_writing_is_no_fault(few: Path) -> None:
    from gptdynamics.collection.claims import Claims

    DatasetFolder(few).run_path("rte_tiny", "0001").unlink()
    mine = f".test-0004.parquet.{os.getpid()}@{platform.node()}.abc.tmp"
    write("")(few / "data/rte_tiny" / mine)
    claims = Claims(few)
    assert claims.take("rte_tiny.0001")
    try:
        found = verify(few)
    finally:
        claims.give_back_all()
    assert (found.faults, found.missing["rte_tiny"]) == ([], ["0002", "0003", "0005"])
    assert found.running == [f"data/rte_tiny/{mine}", "rte_tiny/0001"]
    assert [fault.file for fault in verify(few).faults] == ["data/rte_tiny_runs/train-0001.parquet"]


def test_what_a_killed_process_left_behind_is_named(few: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    name = f"data/rte_tiny/.test-0004.parquet.{process.pid}@{platform.node()}.abc.tmp"
    write("")(few / name)
    (fault,) = verify(few).faults
    assert (fault.file, fault.what) == (name, "a process was killed while it wrote this")
    DatasetFolder(few).remove_leftovers()
    assert verify(few).ok


def test_a_single_run_is_checked_alone(few: Path) -> None:
    assert verify_run(few, "rte_tiny", "0004") == []
    CASES["half right"].damage(few / RUN)
    assert [fault.where for fault in verify_run(DatasetFolder(few), "rte_tiny", "0004")] == ["accuracy"]
    (missing,) = verify_run(few, "rte_tiny", "0009")
    assert missing.what.startswith("run 0009 has no trajectories and no row")
    with pytest.raises(SettingsError, match="is not the name of a run"):
        verify_run(few, "rte_tiny", "../../x")


def test_a_source_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset folder"):
        verify(tmp_path / "nothing")


def test_an_empty_folder_is_sound(tmp_path: Path) -> None:
    assert verify(tmp_path).to_dict() == {
        "source": str(tmp_path),
        "configs": [],
        "runs": 0,
        "rows": 0,
        "faults": [],
        "missing": {},
        "failed": {},
        "running": [],
        "ok": True,
    }


def test_the_findings_are_plain_json(few: Path) -> None:
    CASES["half right"].damage(few / RUN)
    found = json.loads(json.dumps(verify(few).to_dict()))
    assert found["ok"] is False
    assert found["faults"][0]["file"] == RUN and found["faults"][0]["where"] == "accuracy"


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


@pytest.mark.parametrize(
    "changes",
    [
        {name: value}
        for name in RunSettings("rte_nano", 1.0).to_dict()
        for value in (None, -1, 0, 10**30, "x", [], True)
    ],
    ids=str,
)
def test_no_manifest_makes_it_stumble(few_once: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "manifests").mkdir()
    for name in ("data/rte_tiny", "data/rte_tiny_runs", "data/rte_examples"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(few_once / name)
    shutil.copy(few_once / MANIFEST, tmp_path / MANIFEST)
    manifest(**changes)(tmp_path / MANIFEST)
    assert verify(tmp_path).runs == 3
