"""Examples to record with: a label task's and a generation task's, the first rows of the shared local ones."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets.fingerprint import generate_random_fingerprint

from gptdynamics.configs import RunSettings
from gptdynamics.examples import Example
from gptdynamics.tasks import get_task, load_examples
from tests.gptdynamics.recorder.training import NotingTrainer, make_trainer, tokenised

Examples = tuple[list[Example], list[Example]]


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> None:
    """Every Trainer that begins collects garbage, and looks through all modules that are loaded for it."""
    import transformers.trainer  # noqa: F401

    gc.freeze()


@pytest.fixture(autouse=True)
def no_cached_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets in memory are in no cache: naming them for it, by pickling what made them, would only take time."""
    monkeypatch.setattr("datasets.fingerprint.update_fingerprint", lambda *given: generate_random_fingerprint())


@pytest.fixture(scope="session")
def rte(rows_folder: Path) -> Examples:
    """Pool of 12 and test set of 5, as the tiny configs that are collected have them."""
    return load_examples(get_task("rte"), "pool", 12, rows_folder), load_examples(
        get_task("rte"), "test", 5, rows_folder
    )


NANO = RunSettings(
    "mini_sentiment_nano", learning_rate=5e-4, pool_size=24, subset=16, batch_size=4, epochs=1, test_examples=6
)


@pytest.fixture(scope="session")
def collected_nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with one run of `NANO`, as it is collected; not to be changed."""
    from gptdynamics.collection import CollectSettings, collect
    from gptdynamics.plans import Plan, PlanEntry

    out = tmp_path_factory.mktemp("nano") / "dataset"
    collect(CollectSettings(Plan("one", (PlanEntry(NANO, 1),)), out=out, workers=1))
    return out


@pytest.fixture(scope="session")
def sentiment() -> Examples:
    """Pool and test set of that run."""
    task = get_task(NANO.task)
    return load_examples(task, "pool", NANO.pool_size), load_examples(task, "test", NANO.test_examples)


@pytest.fixture(scope="session")
def sst2(rows_folder: Path) -> Examples:
    """No two of these rows are alike."""
    task = get_task("sst2")
    return load_examples(task, "pool", 12, rows_folder), load_examples(task, "test", 5, rows_folder)


@pytest.fixture(scope="session")
def llama_folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama. A Trainer that resumes does not find the output layer of a GPT-NeoX in its checkpoint."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def webnlg(rows_folder: Path) -> Examples:
    task = get_task("webnlg")
    return load_examples(task, "pool", 12, rows_folder), load_examples(task, "test", 5, rows_folder)


@pytest.fixture
def trainer_of(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., NotingTrainer]:
    """A trainer on rows of a pool."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)

    def make(examples: list[Example], **arguments: Any) -> NotingTrainer:
        rows, folder = arguments.pop("rows", None), arguments.pop("folder", tiny_model_folder)
        return make_trainer(
            folder, tokenised(tokenizer, examples) if rows is None else rows, tmp_path / "t", **arguments
        )

    return make
