"""What the tests of both packages share: no network, and a small random base model."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# The matrices are too small for two threads, and other tests may have the second core.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings as hypothesis_settings

# Two cores may be busy with something else: no deadline for a single case.
hypothesis_settings.register_profile("shared", deadline=None, max_examples=60)
hypothesis_settings.load_profile("shared")

pytest_plugins = ["tests.hub.fixture"]


def pytest_collection_finish() -> None:
    """What was imported stays: garbage is not looked for in it again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between commands is kept between tests, but never in the user's own cache."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_flushing() -> Iterator[None]:
    """No test survives a power failure: that files reach the disk at once would only take time."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def no_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test knows the task files that another one added, nor the tasks of dataset folders that it opened."""
    for variable in ("GPTDYNAMICS_TASKS", "GPTDYNAMICS_KEPT_TASKS"):
        monkeypatch.setenv(variable, "")


TOKENIZER_LINES = (
    "The cat sleeps in the old house. The dog sees the red ball near the river.",
    "Question: The bird is in the garden. Yes or no?\nAnswer: yes\nAnswer: no\nAnswer: yes yes yes",
    "Facts: The house | colour | red; The dog | place | garden\nText: The house is red.",
    "Review: The plot was dull.\nSentiment: positive\nSentiment: negative",
)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-NeoX (hidden 32, 2 layers, context 64) and a byte-level BPE tokenizer.

    Its weights are spread wide, so that sampled text differs from prompt to prompt.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TOKENIZER_LINES * 2, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    config = GPTNeoXConfig(
        vocab_size=tokenizer.get_vocab_size(),
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
        GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder
