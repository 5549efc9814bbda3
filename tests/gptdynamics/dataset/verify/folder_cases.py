"""Damages to what runs share, and the faults that must be named for them."""

from __future__ import annotations

import shutil

from tests.gptdynamics.dataset.verify.damage import (
    MANIFEST,
    OTHER_ROW,
    OTHER_RUN,
    POOL,
    RUN,
    TEST,
    Case,
    at,
    column,
    delete,
    manifest,
    replace,
    rows,
    truncate,
    write,
)

FOLDER_CASES = {
    # Examples
    "example lost": Case("few", POOL, rows(lambda table: table.slice(0, 11)), "id", "it ends at 10, but runs of"),
    "example twice": Case("few", POOL, column("id", at(5, 4)), "id", "4 more than once; 5 missing"),
    "examples lost": Case(
        "few", TEST, delete, "", "there is no such file, but runs of webnlg_tiny need it", None, "webnlg_examples"
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
        "run 0001 belongs to split train, not test",
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
    "planned": Case("few", MANIFEST, manifest(planned={"runs": -1}), "planned", "{'runs': -1} must have the numbers"),
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
        replace('  - split: "test"\n    path: "data/rte_tiny/test-*.parquet"\n', ""),
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
        "it is listed, but does not exist",
    ),
}
