"""Base models by name: the bundled nano, the Pythia sizes, or any causal LM by Hub id or folder."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.errors import SettingsError
from gptdynamics.hub.source import is_hub_id
from gptdynamics.nano import MODEL_FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Commits of EleutherAI/pythia-<size>-deduped. That of 2.8b is the one that holds its weights as safetensors.
PYTHIA_REVISIONS = {
    "14m": "7386d9a4ae45aef494a6e704910394def3037fc5",
    "70m": "e93a9faa9c77e5d09219f6c868bfc7a1bd65593c",
    "160m": "582159a2dfe3e712a8d47ae83dec95ae3bde8e7e",
    "410m": "c4fc8d586d62df497f1f9b69d66d3ca419992d3e",
    "1b": "7199d8fc61a6d565cd1f3c62bf11525b563e13b2",
    "2.8b": "04c6993bdebe728d5ad1dae3a916eaa766166783",
}
_LOADING = threading.Lock()


@dataclass(frozen=True)
class BaseModel:
    """A model that runs start from.

    Attributes:
        name: as given: `nano`, a Pythia size, a folder, or a Hub id with or without a revision.
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


def base_model_source(name: str) -> tuple[str, str | None]:
    """What `from_pretrained` is given for a base model's name: a folder or a Hub id, and the revision if one is named.

    Args:
        name: `nano`, a Pythia size, a folder, or a Hub id, with a commit, branch or tag as in `owner/name@revision`.
    """
    if name == "nano":
        return str(MODEL_FOLDER), None
    if name in PYTHIA_REVISIONS:
        return f"EleutherAI/pythia-{name}-deduped", PYTHIA_REVISIONS[name]
    source, _, revision = name.rpartition("@")
    if source and revision and not Path(name).exists():
        return source, revision
    return name, None


def unpublished_note(name: str) -> str | None:
    """What to tell who publishes what was made from a base model that others cannot get; None: they can.

    Args:
        name: as of `base_model_source`.
    """
    source, _ = base_model_source(name)
    if name == "nano" or (is_hub_id(source) and not Path(source).is_dir()):
        return None
    return (
        f"the base model {name} is a folder, which others cannot get: publish it with gptdynamics push-base, and "
        "collect with --base-model <owner>/<name>"
    )


def model_revision(name: str) -> str:
    """What identifies a base model's weights: a Hub commit, or of a folder the first 12 hex digits of their SHA-256.

    Raises:
        SettingsError: it is neither a folder with weights nor on a reachable Hub.
    """
    source, revision = base_model_source(name)
    if not Path(source).is_dir():
        if "/" in source and not is_hub_id(source):
            raise _cannot_load(name, FileNotFoundError("there is no such folder, and a Hub id is <owner>/<name>"))
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionResolutionError

        try:
            return str(HfApi().resolve_revision(source, revision=revision).resolved)
        except (OSError, ValueError, RevisionResolutionError) as error:
            raise _cannot_load(name, error) from error
    weights = sorted(Path(source).glob("*.safetensors"))
    if not weights:
        raise _cannot_load(name, FileNotFoundError("the folder has no *.safetensors"))
    digest = hashlib.sha256()
    for path in weights:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _cannot_load(name: str, error: Exception) -> SettingsError:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RepositoryNotFoundError):
        reason = "the Hub has no such model, or your token does not open it"
    elif isinstance(error, RevisionNotFoundError):
        reason = "it has no such commit, branch or tag"
    else:
        reason = str(error).strip().splitlines()[0].rstrip(".")
    known = ", ".join(("nano", *PYTHIA_REVISIONS))
    return SettingsError(
        f"cannot load base model {name!r}: {reason}. Known sizes: {known}; "
        "--base-model takes a folder or a Hub id, also as <owner>/<name>@<revision>"
    )


def load_base_model(name: str, device: str = "cpu") -> BaseModel:
    """Load a base model in fp32.

    Args:
        name: `nano`, a Pythia size (`410m`), a folder, or a Hub id, which may name a revision: `owner/name@revision`.
        device: `cpu`, or a GPU such as `cuda:0`.

    Raises:
        SettingsError: it cannot be found or is not a causal language model.
    """
    from transformers import AutoTokenizer

    source, _ = base_model_source(name)
    revision = model_revision(name)
    # All files of one commit, even if the repository changes meanwhile.
    commit = None if Path(source).is_dir() else revision
    try:
        model = load_weights(source, commit)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=commit)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error
    if tokenizer.eos_token_id is None:
        raise SettingsError(f"base model {name!r}: its tokenizer has no end-of-text token")
    model.to(device)
    return BaseModel(name=name, revision=revision, model=model, tokenizer=tokenizer)


def load_weights(source: str, revision: str | None = None) -> PreTrainedModel:
    """A causal language model from a folder or a Hub id, in fp32 and in evaluation mode.

    `from_pretrained` switches tying off for the whole process while it loads. If two threads load at once it may stay
    off, and every tied model that is loaded afterwards comes without its output layer. So models are loaded one at a
    time here, and where other code left tying off, the output layer is tied again.

    Raises:
        OSError, ValueError: there is no such model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with _LOADING:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True
        )
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and head is not None and head.weight.is_meta:
        head.weight = embedding.weight
    return model.eval()
