"""Base models by name: the bundled nano, the Pythia sizes, or any causal LM by Hub id or folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.errors import SettingsError
from gptdynamics.nano import MODEL_FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PYTHIA_SIZES = ("14m", "70m", "160m", "410m", "1b", "2.8b")


@dataclass(frozen=True)
class BaseModel:
    """A model that runs start from.

    Attributes:
        name: as given: `nano`, a Pythia size's Hub id, a Hub id or a folder.
        revision: commit of the Hub, or for a folder the first 12 hex digits of its weights' SHA-256.
        model: fp32 weights, in evaluation mode.
        tokenizer: with an end-of-text token.
    """

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """Longest input in tokens."""
        return int(self.model.config.max_position_embeddings)


def base_model_source(name: str) -> str:
    """What `from_pretrained` is given for a base model's name: a folder or a Hub id."""
    if name == "nano":
        return str(MODEL_FOLDER)
    return f"EleutherAI/pythia-{name}-deduped" if name in PYTHIA_SIZES else name


def model_revision(source: str) -> str:
    """What identifies the weights: a Hub commit, or for a folder the first 12 hex digits of their SHA-256."""
    weights = sorted(Path(source).glob("*.safetensors"))
    if not weights:
        from transformers import AutoConfig

        return str(getattr(AutoConfig.from_pretrained(source), "_commit_hash", None) or "unknown")
    digest = hashlib.sha256()
    for path in weights:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def load_base_model(name: str, device: str = "cpu") -> BaseModel:
    """Load a base model in fp32.

    Args:
        name: `nano`, a Pythia size (`410m`), a Hub id or a folder.
        device: `cpu`, or a GPU such as `cuda:0`.

    Raises:
        SettingsError: it cannot be found or is not a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = base_model_source(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        known = ", ".join(("nano", *PYTHIA_SIZES))
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(
            f"cannot load base model {name!r}: {reason}. Known sizes: {known}; --base-model takes a Hub id or a folder"
        ) from error
    if tokenizer.eos_token_id is None:
        raise SettingsError(f"base model {name!r}: its tokenizer has no end-of-text token")
    model.to(device).eval()
    return BaseModel(name=name, revision=model_revision(source), model=model, tokenizer=tokenizer)
