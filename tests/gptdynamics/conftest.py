"""A loaded tiny base model, local task rows, and a dataset folder collected with them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.base_model import BaseModel
from gptdynamics.configs import RunSettings

LABELS = {"sst2": ("positive", "negative"), "boolq": ("true", "false")}
NOUNS = "cat dog bird house garden river ball plot".split()
PLACES = "garden house river".split()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The matrices of these tests are too small for two threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_base(tiny_model_folder: Path) -> BaseModel:
    """The tiny model, loaded once; tests must not change it."""
    from gptdynamics.base_model import load_base_model

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
        write_rows(root / "rte" / f"{split}.jsonl", rte)
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
            write_rows(root / task / f"{split}.jsonl", rows)
        write_rows(root / "webnlg" / f"{split}.jsonl", webnlg)
    return root


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


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
