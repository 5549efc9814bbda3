"""Everything that reads data from outside, each with the files that it reads and what it makes of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from gptdynamics.cache import Entries
from gptdynamics.configs import run_name
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.card import merge_card
from gptdynamics.dataset.gradient_reading import read_products, read_update_products, read_vectors
from gptdynamics.dataset.recorded import Recorded
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA, read_parquet
from gptdynamics.dataset.status import folder_status
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import SettingsError
from gptdynamics.exchange import import_release
from gptdynamics.plans import read_plan
from gptdynamics.recorder.checkpoint import NAME, load_partial
from gptdynamics.tasks import load_examples
from gptdynamics.tasks.user_tasks import _tasks_of
from simulator.encoders import encode_cached, make_encoder
from simulator.evaluation.simulated import load_simulator
from simulator.hub.card import FIGURES
from simulator.hub.push import _results
from simulator.hub.space import trained_on
from simulator.settings.use_cases import MISLABEL_SCORES as SCORES
from simulator.training.checkpoints import Checkpoints
from simulator.use_cases.simulate import read_curriculum
from tests.fuzz.conftest import CONFIG
from tests.fuzz.mutations import ODD_VALUES, Damaged, damage_tree


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: of it.
        files: that it reads.
        read: gives what it made of them, to be compared.
        damage: changes values in a file, as text or as a table.
        exact: whether damaged bytes must be noticed, or make no difference: the files know their own content.
        own: whether another file at the place of one must be noticed, too.
        share: of the inputs, in comparison with the others.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], Any]
    damage: Callable[[random.Random, bytes], Damaged]
    exact: bool = False
    own: bool = False
    share: int = 1


def fingerprint(value: Any) -> str:
    """What a value is, of whatever types."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed(digest, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, dict):
        for key, each in value.items():
            digest.update(repr(key).encode("utf-8", "surrogatepass"))
            _feed(digest, each)
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)}".encode())
        for each in value:
            _feed(digest, each)
    else:
        digest.update(repr(value).encode("utf-8", "surrogatepass"))


def _json(rng: random.Random, content: bytes) -> Damaged:
    return damage_tree(rng, json.loads(content), json.dumps)


def _lines(rng: random.Random, content: bytes) -> Damaged:
    """A row of JSON lines with another value, or blank lines and byte order marks between rows."""
    rows = content.splitlines(keepends=True)
    at = rng.randrange(len(rows))
    if rng.random() < 0.2:
        rows.insert(at, rng.choice([b"\n", b" \r\n", b"\xef\xbb\xbf", b"\xff\xfe\n", b"[\n", b"null\n"]))
        return Damaged("line", b"".join(rows))
    damaged = damage_tree(rng, json.loads(rows[at]), json.dumps)
    rows[at] = (damaged.content or b"") + b"\n"
    return Damaged(damaged.kind, b"".join(rows))


def _toml(rng: random.Random, content: bytes) -> Damaged:
    return damage_tree(rng, tomllib.loads(content.decode()), _toml_text)


def _toml_text(tree: Any) -> str:
    if not isinstance(tree, dict):
        return json.dumps(tree)
    return "".join(f"{json.dumps(name)} = {_toml_value(value)}\n" for name, value in tree.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)


def _card(rng: random.Random, content: bytes) -> Damaged:
    """Front matter with another value, a Python tag, an anchor, or deep nesting."""
    _, head, body = content.decode().split("---\n", 2)
    if rng.random() < 0.3:
        odd = [
            "x: !!python/object/apply:os.system [ls]",
            "x: &a [*a]",
            "x: " + "[" * 1500,
            "? [a]\n: b",
            "? {a: b}\n: c",
            "x: 0x" + "f" * 5000,
            "x: " + "9" * 5000,
            "x: 1:60",
            "x: *unknown",
            "\tx: 1",
            "tags: {a: b}",
            "tags:\n- [1]\n- 2024-01-01",
            "x: 2024-99-99",
            "tags: 3",
            "a: b: c",
        ]
        return Damaged("yaml", f"---\n{head}{rng.choice(odd)}\n---\n{body}".encode())

    def write(tree: Any) -> str:
        return f"---\n{json.dumps(tree)}\n---\n{body}"

    return damage_tree(rng, yaml.safe_load(head), write)


def _python(rng: random.Random, content: bytes) -> Damaged:
    """A task file with another value of a field. Its code is not damaged otherwise: it would be run."""
    lines = content.decode().splitlines()
    places = [at for at, line in enumerate(lines) if line.startswith("    ") and " = " in line]
    at = rng.choice(places)
    if rng.random() < 0.2:
        del lines[at]
    else:
        odd = [*ODD_VALUES, ("a",), (" a", " b"), {"text": 3}, {"text": int}]
        value = repr(rng.choice(odd)).replace("<class 'int'>", "int")
        lines[at] = lines[at].split(" = ")[0] + " = " + value
    return Damaged("field", "\n".join(lines).encode("utf-8", "surrogatepass"))


def _table(rng: random.Random, content: bytes) -> Damaged:
    """A Parquet file of other columns, types, rows or values, written soundly."""
    table = pq.read_table(pa.BufferReader(content))
    kind = rng.choice(
        ["no rows", "row less", "row twice", "column less", "column twice", "type", "null", "values", "renamed"]
    )
    at = rng.randrange(table.num_columns)
    field, column = table.schema.field(at), table.column(at)
    if kind == "no rows":
        table = table.slice(0, 0)
    elif kind == "row less":
        table = table.slice(rng.randrange(2), max(0, table.num_rows - 1))
    elif kind == "row twice":
        table = pa.concat_tables([table, table.slice(0, 1)])
    elif kind == "column less":
        table = table.remove_column(at)
    elif kind == "column twice":
        table = table.append_column(field.name, column)
    elif kind == "renamed":
        table = table.rename_columns([("x" if name == field.name else name) for name in table.column_names])
    elif kind == "null":
        values = column.to_pylist()
        values[rng.randrange(len(values))] = None
        table = table.set_column(at, field, pa.array(values, field.type))
    else:
        others: list[Any] = [
            [rng.choice(ODD_VALUES[3:9])] * table.num_rows,
            [rng.choice(["", "x", "0001"])] * table.num_rows,
            [[0, 1, 2]] * table.num_rows,
            [[0.5]] * table.num_rows,
            [[]] * table.num_rows,
            [[[0], [0]]] * table.num_rows,
            [None] * table.num_rows,
        ]
        table = table.set_column(at, field.name, pa.array(rng.choice(others)))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return Damaged(f"table: {kind}", sink.getvalue().to_pybytes())


def _no_values(rng: random.Random, content: bytes) -> Damaged:
    return Damaged("nothing", content)


def readers(dataset: Path, model: Path, checkpoints: Path, texts: Path, release: Path) -> list[Reader]:
    """All of them."""
    folder = DatasetFolder(dataset)
    runs = folder.finished(CONFIG)
    run_files = [each for run in runs for each in (folder.run_path(CONFIG, run), folder.run_row_path(CONFIG, run))]
    examples = [folder.examples_path("mini_sentiment", part) for part in ("pool", "test")]
    card = dataset / "README.md"
    manifest = folder.manifest_path(CONFIG)
    held_out = run_name(4)

    def rows() -> Any:
        _tasks_of.cache_clear()
        found = load_examples(_tasks_of(str(texts / "task.py"))[0], "pool", 3, texts)
        for example in found:
            # What is read can be stored.
            json.dumps(dataclasses.asdict(example), ensure_ascii=False).encode()
        return found

    def plan() -> Any:
        found = read_plan(texts / "plan.toml")
        return json.dumps([found.to_rows(), [entry.run_names[:3] for entry in found], found.runs]), found.name

    def task() -> Any:
        _tasks_of.cache_clear()
        (found, *_) = _tasks_of(str(texts / "task.py"))
        return found.name, found.metrics, found.licence()

    def merged() -> Any:
        sound = (dataset / "sound.md").read_text()
        try:
            old = card.read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            old = ""
        text = merge_card(old, sound)
        head = yaml.safe_load(text.split("---\n")[1])
        assert head["configs"] == yaml.safe_load(sound.split("---\n")[1])["configs"]
        return None

    def settings() -> Any:
        values = folder.manifest(CONFIG)
        found = verify(dataset)
        folder_status(dataset)
        if isinstance(values.get("recording"), dict):
            Recorded.of(values["recording"])
        return [str(fault) for fault in found.faults]

    def gradients() -> Any:
        return (
            read_vectors(dataset, CONFIG),
            read_products(dataset, CONFIG, held_out),
            read_update_products(dataset, CONFIG, held_out),
        )

    def simulator() -> Any:
        loaded = load_simulator(str(model))
        curriculum = [[at % 4, (at + 1) % 4] for at in range(2)]
        values = loaded.simulate(curriculum, initial=[1.0] * len(loaded.config.test_keys), learning_rate=[1e-3, 5e-4])
        return loaded.state_dict(), loaded.config.to_dict(), torch.as_tensor(values)

    def tables() -> Any:
        return [read_parquet(each, EXAMPLE_SCHEMA.names).to_pylist() for each in examples]

    def training() -> Any:
        kept = Checkpoints(checkpoints, {"seed": 1, "config": CONFIG})
        kept.check()
        return kept.load("setting-00")

    authors = tuple(path for path in sorted(release.rglob("*")) if path.is_file())

    def imported() -> Any:
        shutil.rmtree(release.parent / "imported", ignore_errors=True)
        import_release(release, release.parent / "imported")
        # What is imported can be read.
        for each in DatasetFolder(release.parent / "imported").configs():
            with suppress(SettingsError):
                read_dynamics(release.parent / "imported", each, "loss")

    encoder, some = make_encoder("label", "nano"), read_dynamics(dataset, CONFIG, "loss").pool

    def encoded() -> Any:
        return encode_cached(encoder, some)

    encoded()
    [encodings] = (Path(os.environ["GPTDYNAMICS_CACHE"]) / "encodings").glob("*/*.npy")
    sound_scores = {name: np.arange(6.0) for name in SCORES}
    kept = Entries(checkpoints)

    def scores() -> Any:
        if kept.load_arrays("scores") is None:
            kept.save_arrays("scores", sound_scores)
        return kept.load_arrays("scores")

    scores()
    figures = {"model": str(model), "config": CONFIG, "metric": "loss", "split": "test", "runs": 1}
    (texts / "evaluation.json").write_text(json.dumps([figures | dict.fromkeys(FIGURES, 0.5)]))
    known = load_simulator(str(model)).config

    def evaluation() -> Any:
        return _results(texts / "evaluation.json", model, known)

    return [
        Reader("rows", (texts / "own" / "train.jsonl",), rows, _lines, share=4),
        Reader("plan", (texts / "plan.toml",), plan, _toml, share=4),
        Reader("task file", (texts / "task.py",), task, _python, share=2),
        Reader("curriculum", (texts / "curriculum.json",), lambda: read_curriculum(texts / "curriculum.json"), _json),
        Reader("card", (card,), merged, _card, share=3),
        Reader("manifest", (manifest,), settings, _json, share=2),
        Reader("run files", tuple(run_files), lambda: read_dynamics(dataset, CONFIG, "loss"), _table, True, True, 5),
        Reader("examples", tuple(examples), lambda: read_dynamics(dataset, CONFIG, "loss"), _table, True, False, 2),
        Reader("verify", (*run_files, *examples), lambda: [str(each) for each in verify(dataset).faults], _table),
        Reader(
            "gradients",
            (folder.vectors_path(CONFIG), folder.products_path(CONFIG, held_out), folder.run_path(CONFIG, held_out)),
            gradients, _table, True, True, 3,
        ),
        Reader("configuration", (model / "config.json",), simulator, _json, True, True, 3),
        Reader("weights", (model / "model.safetensors",), simulator, _no_values, True, True, 2),
        Reader("training", (model / "training.json",), lambda: trained_on(model), _json),
        Reader("checkpoint", (checkpoints / "setting-00.safetensors",), training, _no_values, True, True, 2),
        Reader("checkpoint settings", (checkpoints / "settings.json",), training, _json, True, True),
        Reader("recording", (checkpoints / NAME,), lambda: load_partial(checkpoints, 2), _no_values, True, True, 2),
        Reader(
            "any Parquet file", tuple(examples), tables, _table,
            True,
        ),
        Reader("authors' release", authors, imported, _lines, share=2),
        Reader("encodings", (encodings,), encoded, _no_values, True, True),
        Reader("kept scores", (kept.path("scores"),), scores, _no_values, True, True),
        Reader("evaluation", (texts / "evaluation.json",), evaluation, _json),
    ]  # fmt: skip
