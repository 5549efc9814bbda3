"""A loaded tiny base model, local task rows, and a dataset folder collected with them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gptdynamics.configs import RunSettings
from gptdynamics.models.base_model import BaseModel
from tests.gptdynamics.exchange.authors_layout import FLAN, RTE, WEBNLG, write_lines

if TYPE_CHECKING:
    from gptdynamics.exchange import Imported

LABELS = {"sst2": ("positive", "negative"), "boolq": ("true", "false")}
NOUNS = "cat dog bird house garden river ball plot".split()
PLACES = "garden house river".split()


@pytest.fixture(scope="session")
def tiny_base(tiny_model_folder: Path) -> BaseModel:
    """The tiny model, loaded once; tests must not change it."""
    from gptdynamics.models.base_model import load_base_model

    return load_base_model(str(tiny_model_folder))


@pytest.fixture(scope="session")
def rows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short local rows of the six tasks: 200 for the pool, 12 for the test set."""
    root = tmp_path_factory.mktemp("rows")
    rng = random.Random(0)
    for split, count in (("train", 200), ("eval", 12)):
        rte, webnlg = [], []
        for number in range(count):
            noun, place, other = rng.choice(NOUNS), rng.choice(PLACES), rng.choice(PLACES)
            premise = " ".join([f"The {noun} is in the {place}."] * rng.choice((1, 1, 2)))
            label = "entailment" if place == other else "not_entailment"
            hypothesis = f"The {noun} is in the {other}."
            rte.append({"premise": premise, "hypothesis": hypothesis, "label": label, "source_index": number})
            triples = [f"The_{noun} | place | {place}", f"The_{noun} | colour | red"][: rng.choice((1, 2))]
            references = [f"The {noun} is in the {place}.", f"The {place} has the {noun}."][: rng.choice((1, 2))]
            webnlg.append({"triples": triples, "references": references})
        write_lines(root / "rte" / f"{split}.jsonl", rte)
        scenes = [f"The {NOUNS[at % 8]} sees the {NOUNS[at // 8 % 8]} number {at}" for at in range(count)]
        others = {
            "sst2": [{"sentence": text, "label": LABELS["sst2"][at % 2]} for at, text in enumerate(scenes)],
            "boolq": [
                {"passage": text, "question": "is the ball red", "label": LABELS["boolq"][at % 2]}
                for at, text in enumerate(scenes)
            ],
            "wmt16": [{"de": f"Satz {at}", "en": text} for at, text in enumerate(scenes)],
            "cnn_dm": [{"article": f"{text}. {text}.", "highlights": text} for text in scenes],
        }
        for task, rows in others.items():
            write_lines(root / task / f"{split}.jsonl", rows)
        write_lines(root / "webnlg" / f"{split}.jsonl", webnlg)
    return root


@pytest.fixture(scope="session")
def make_settings(tiny_model_folder: Path) -> Callable[..., RunSettings]:
    """Settings of runs of two updates on a pool of 12, with 5 test examples, on the tiny model."""

    def make(config: str = "rte_tiny", **changes: Any) -> RunSettings:
        small: dict[str, Any] = {
            "learning_rate": 1e-3,
            "pool_size": 12,
            "subset": 8,
            "batch_size": 4,
            "epochs": 1,
            "test_examples": 5,
            "base_model": str(tiny_model_folder),
        }
        return RunSettings(config=config, **(small | changes))

    return make


@pytest.fixture(scope="session")
def collected_once(
    tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., RunSettings], rows_folder: Path
) -> Path:
    """A dataset folder with six runs of a label config and six of a generation config; not to be changed."""
    from gptdynamics.collection import CollectSettings, collect
    from gptdynamics.plans import Plan, PlanEntry

    out = tmp_path_factory.mktemp("collected") / "dataset"
    plan = Plan("shared", tuple(PlanEntry(make_settings(config), 6) for config in ("rte_tiny", "webnlg_tiny")))
    collect(CollectSettings(plan, out=out, data=rows_folder, workers=1))
    return out


@pytest.fixture(scope="session")
def with_gradients(
    tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., RunSettings], rows_folder: Path
) -> Path:
    """A dataset folder whose test runs have gradient products: runs 0000 to 0004 and one or two on unseen rows of a
    label, a generation and a mixed config; not to be changed."""
    from gptdynamics.collection import CollectSettings, collect
    from gptdynamics.plans import Plan, PlanEntry

    out = tmp_path_factory.mktemp("with_gradients") / "dataset"
    recorded: dict[str, Any] = {"gradients": "test", "gradient_width": 16}
    entries = [PlanEntry(make_settings(config, **recorded), 5, 2) for config in ("rte_tiny", "webnlg_tiny")]
    mixed = make_settings("flan_tiny", pool_size=4, subset=2, test_examples=3, **recorded)
    plan = Plan("with gradients", (*entries, PlanEntry(mixed, 5, 1)))
    collect(CollectSettings(plan, out=out, data=rows_folder, workers=1))
    return out


@pytest.fixture
def collected(collected_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder for one test to change."""
    return Path(shutil.copytree(collected_once, tmp_path / "dataset"))


def write_authors_run(folder: Path, seed: int, metrics: dict[str, Iterable[int]], batch: int) -> None:
    """Random batches, and for each metric trajectories of the given test examples that depend on them."""
    rng = np.random.default_rng(seed)
    batches = [rng.choice(40, batch, replace=False).tolist() for _ in range(12)]
    rows = [{"step": at, "samples_id": each} for at, each in enumerate(batches, start=1)]
    write_lines(folder / "train_samples_id.json", rows)
    balance = np.cumsum([np.mean([(-1) ** at for at in each]) for each in batches])
    for metric, ids in metrics.items():
        scale = {"loss": 1.0, "bleu": 20.0, "rougeL": 0.3}[metric]
        values = {at: scale * (1 + at / 20 + 0.05 * (-1) ** at * balance) / 1.5 for at in ids}
        trajectories = [
            {"id": at, "loss_trajectory": [{"step": step, "loss": float(value)} for step, value in enumerate(each, 1)]}
            for at, each in values.items()
        ]
        write_lines(folder / f"all_{metric}_trajectory.out", trajectories)


def write_authors_release(root: Path) -> None:
    """A sound release: runs of rte and webnlg on one model, of flan on two; seeds 1 to 7."""
    for name, count in (
        ("sft_tasks/rte/rte_0_39_train.json", 40),
        ("sft_tasks/rte/rte_0_6_eval.json", 7),
        ("sft_tasks/webnlg/webnlg_train_0-39.json", 40),
        ("sft_tasks/webnlg/webnlg_dev_0-6.json", 7),
        ("it_tasks/flan_train_0_39.json", 40),
        ("it_tasks/flan_eval_0_6.json", 7),
    ):
        write_lines(root / name, [{"id": at, "input": f"Row {at} of {name}: yes"} for at in range(count)])
    every = range(7)
    for seed in range(1, 8):
        write_authors_run(root / RTE.format(seed), seed, {"loss": every}, 4)
        write_authors_run(root / WEBNLG.format(seed), seed, {"loss": every, "bleu": every, "rougeL": every}, 4)
        for model in ("pythia-14m", "pythia-2.8b-deduped"):
            # The two subtasks that have BLEU come first in their files.
            some = {"loss": [4, 5, 6, 0, 1, 2, 3], "bleu": [5, 4], "rougeL": [5, 4]}
            write_authors_run(root / FLAN.format(model, seed), seed, some, 8)


@pytest.fixture(scope="session")
def sound_release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Imported]:
    """A sound release of the paper authors' layout, the dataset folder it was imported into, and what the import said;
    not to be changed."""
    from gptdynamics.exchange import import_release

    root = tmp_path_factory.mktemp("authors")
    write_authors_release(root / "release")
    return root / "release", root / "dataset", import_release(root / "release", root / "dataset")


@pytest.fixture
def release(sound_release: tuple[Path, Path, Imported], tmp_path: Path) -> Path:
    """A copy of that release for one test to change: its runs of rte and of webnlg."""
    return Path(shutil.copytree(sound_release[0], tmp_path / "release", ignore=shutil.ignore_patterns("flan*")))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: exit status, standard output, standard error."""
    from gptdynamics.cli import app
    from gptdynamics.commands.running import run_app

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = 0
        try:
            run_app(app, [str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return run
