"""Base models by name: the bundled nano, SmolLM2, the Pythia sizes, or any causal LM by Hub id or folder."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.errors import SettingsError
from gptdynamics.hub.source import is_hub_id
from gptdynamics.models.local_models import remembered_folder
from gptdynamics.models.model_folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    UnusableModelError,
    adapter_base,
    adapter_digest,
    check_config,
    weights_digest,
)
from gptdynamics.models.nano import MODEL_FOLDER
from gptdynamics.models.smollm2 import HUB_ID, HUB_REVISION, REMEDY, check_smollm2, smollm2_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Commits of EleutherAI/pythia-<size>-deduped. That of 2.8b is the one with safetensors.
PYTHIA_REVISIONS = {
    "14m": "7386d9a4ae45aef494a6e704910394def3037fc5",
    "70m": "e93a9faa9c77e5d09219f6c868bfc7a1bd65593c",
    "160m": "582159a2dfe3e712a8d47ae83dec95ae3bde8e7e",
    "410m": "c4fc8d586d62df497f1f9b69d66d3ca419992d3e",
    "1b": "7199d8fc61a6d565cd1f3c62bf11525b563e13b2",
    "2.8b": "04c6993bdebe728d5ad1dae3a916eaa766166783",
}
SIZES = ("nano", "smollm2", *PYTHIA_REVISIONS)
_LOADING = threading.Lock()


# Names of tokenizer files.
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
# The context of a model without a limit: longer than any text.
NO_LIMIT = 2**31 - 1
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")


@dataclass(frozen=True)
class BaseModel:
    """A model that runs start from.

    Attributes:
        name: as given: `nano`, `smollm2`, a Pythia size, a folder, or a Hub id with or without a revision.
        revision: commit on the Hub, or for a folder the first 12 hex digits of its weights' SHA-256. An adapter has its
            own revision (which includes its configuration), a plus sign, and that of its base model.
        model: fp32 weights, in evaluation mode.
        tokenizer: with an end-of-text token.
    """

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """Longest input in tokens; `NO_LIMIT` if the architecture has no limit (recurrences, ALiBi)."""
        config = self.model.config.get_text_config()
        limits = (getattr(config, name, None) for name in _LENGTHS)
        longest = next((value for value in limits if isinstance(value, int) and value > 0), NO_LIMIT)
        # Models like RoBERTa count positions from the one after the padding position.
        offsets = [
            module.padding_idx + 1
            for name, module in self.model.named_modules()
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        ]
        return longest - max(offsets, default=0)

    @property
    def vocabulary(self) -> int:
        """Number of tokens with embeddings; the tokenizer may have more."""
        return int(self.model.get_input_embeddings().weight.size(0))


def base_model_source(name: str) -> tuple[str, str | None]:
    """The arguments of `from_pretrained` for a base model: a folder or a Hub id, and the revision, if any.

    Args:
        name: `nano`, a Pythia size, a folder, or a Hub id, with a commit, branch or tag as in `owner/name@revision`.
    """
    if name == "nano":
        return str(MODEL_FOLDER), None
    if name == "smollm2":
        copy = smollm2_folder()
        return (HUB_ID, HUB_REVISION) if copy is None else (str(copy), None)
    if name in PYTHIA_REVISIONS:
        return f"EleutherAI/pythia-{name}-deduped", PYTHIA_REVISIONS[name]
    if "/" not in name and not Path(name).is_dir():
        # Datasets and simulators name a folder without its path.
        folder = remembered_folder(name)
        if folder is not None:
            return str(folder), None
    source, _, revision = name.rpartition("@")
    if source and revision and not Path(name).exists():
        return source, revision
    return name, None


def unpublished_note(name: str, remedy: str = "collect with --base-model <owner>/<name>") -> str | None:
    """A note for publishing results of a base model that other users cannot get; None if they can get it.

    Args:
        name: see `base_model_source`.
        remedy: what to do so that runs name a published model.
    """
    source, _ = base_model_source(name)
    if name in SIZES or (is_hub_id(source) and not Path(source).is_dir()):
        return None
    return (
        f"the base model {name} is a local folder, which other users do not have: publish it with gptdynamics "
        f"push-base, and "
        f"{remedy}"
    )


def model_revision(name: str) -> str:
    """The identifier of a base model's weights, see `BaseModel.revision`.

    Raises:
        SettingsError: it is neither a folder with weights nor on a reachable Hub.
    """
    return _revision(name, ())


def _revision(name: str, adapters_above: tuple[str, ...]) -> str:
    """Like `model_revision`; `adapters_above` are the names of adapters on this base model, to detect loops."""
    source, revision = base_model_source(name)
    if name == "smollm2" and Path(source).is_dir():
        return check_smollm2(Path(source))
    try:
        if Path(source).is_dir():
            folder = Path(source)
            own_revision = weights_digest(folder) if _adapter_config(source, "") is None else adapter_digest(folder)
        elif "/" in source and not is_hub_id(source):
            raise FileNotFoundError("there is no such folder, and a Hub id is <owner>/<name>")
        elif not is_hub_id(source):
            raise FileNotFoundError(
                "there is no such folder here. Datasets and simulators name a folder without its path: put it, or a "
                "link to it, in the current folder"
            )
        else:
            from huggingface_hub import HfApi

            own_revision = str(HfApi().resolve_revision(source, revision=revision).resolved)
        adapter = _adapter_config(source, own_revision)
        if adapter is None:
            return own_revision
        base, base_revision = adapter_base(adapter)
    except _loading_errors() as error:
        raise _cannot_load(name, error) from error
    base_name = _named(base, base_revision)
    if base_name in (*adapters_above, name):
        reason = UnusableModelError(f"its {ADAPTER_CONFIG} leads back to the adapter itself: name its base model there")
        raise _cannot_load(name, reason)
    return f"{own_revision}+{_revision(base_name, (*adapters_above, name))}"


def _named(source: str, revision: str | None) -> str:
    return source if revision is None or Path(source).is_dir() else f"{source}@{revision}"


def _adapter_config(source: str, commit: str) -> Path | None:
    """The configuration file of a folder or repository that is a peft adapter; None if it is a whole model."""
    if Path(source).is_dir():
        path = Path(source) / ADAPTER_CONFIG
        if not path.is_file():
            return None
        if (Path(source) / ADAPTER_WEIGHTS).is_file() or not (Path(source) / "config.json").is_file():
            return path
        raise UnusableModelError(
            f"it has an {ADAPTER_CONFIG} without {ADAPTER_WEIGHTS}: add these weights or, if it is a whole model, "
            f"remove {ADAPTER_CONFIG}"
        )
    from transformers.utils import cached_file

    # Like transformers: if a repository has an adapter and whole weights, the adapter on its base model is used.
    model_config, adapter, weights = (
        cached_file(source, file, revision=commit, _raise_exceptions_for_missing_entries=False)
        for file in ("config.json", ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    )
    return Path(adapter) if adapter and (weights or not model_config) else None


def _loading_errors() -> tuple[type[Exception], ...]:
    """The errors that the libraries raise when a model cannot be loaded."""
    from huggingface_hub.errors import HFValidationError, RevisionResolutionError
    from safetensors import SafetensorError

    return (OSError, ValueError, KeyError, RuntimeError, SafetensorError, RevisionResolutionError, HFValidationError)


def _cannot_load(name: str, error: Exception) -> SettingsError:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    advice = ""
    if isinstance(error, RepositoryNotFoundError):
        reason = "the Hub has no such model, or your token cannot access it"
    elif isinstance(error, RevisionNotFoundError):
        reason = "it has no such commit, branch or tag"
    else:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rstrip(".:")
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            reason = "it needs Python code of its repository, which is not run here"
            advice = "Give a model whose architecture is part of transformers. "
        elif "Unrecognized configuration class" in reason:
            reason = "it is not a causal language model"
    if isinstance(error, UnusableModelError):
        return SettingsError(f"cannot load base model {name!r}: {reason}")
    if name == "smollm2":
        advice = f"With no Hub, {REMEDY}. "
    sizes = ", ".join(SIZES)
    return SettingsError(
        f"cannot load base model {name!r}: {reason}. {advice}Known sizes: {sizes}; "
        "--base-model takes a folder or a Hub id, also as <owner>/<name>@<revision>"
    )


def load_base_model(name: str, device: str = "cpu") -> BaseModel:
    """Load a base model in fp32; an adapter of peft is loaded with its base model and merged into it.

    Args:
        name: `nano`, a Pythia size (`410m`), a folder, or a Hub id, which may name a revision: `owner/name@revision`.
        device: `cpu`, or a GPU such as `cuda:0`.

    Raises:
        SettingsError: it cannot be loaded, or is not a causal language model.
    """
    from gptdynamics.measurement.logits import logit_route

    source, _ = base_model_source(name)
    revision = model_revision(name)
    # All files come from one commit, even if the repository changes meanwhile.
    commit = None if Path(source).is_dir() else revision.partition("+")[0]
    try:
        adapter = _adapter_config(source, commit or "")
        if adapter is None:
            model, tokenizer = load_weights(source, commit), _load_tokenizer(source, commit)
        else:
            base = load_base_model(_named(*adapter_base(adapter)))
            model = _merge_adapter(base.model, source, commit)
            tokenizer = _load_tokenizer(source, commit, base.tokenizer)
    except _loading_errors() as error:
        raise _cannot_load(name, error) from error
    if tokenizer.eos_token_id is None:
        raise SettingsError(f"base model {name!r}: its tokenizer has no end-of-text token. Set eos_token and save it")
    model.to(device)
    try:
        logit_route(model)
    except SettingsError as error:
        raise SettingsError(f"base model {name!r}: {error}") from error
    return BaseModel(name=name, revision=revision, model=model, tokenizer=tokenizer)


def _load_tokenizer(
    source: str, revision: str | None, fallback: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """A model's tokenizer; `fallback` if it has none."""
    from transformers import AutoTokenizer

    try:
        folder = Path(source)
        if folder.is_dir() and not any(path for kind in _TOKENIZER_FILES for path in folder.glob(kind)):
            # Otherwise transformers would make an empty tokenizer of the model's type.
            raise FileNotFoundError("the folder has none")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, revision=revision)
    except _loading_errors() as error:
        if fallback is not None:
            return fallback
        if "trust_remote_code" in str(error):
            raise
        raise UnusableModelError(
            f"it has no tokenizer that can be loaded ({str(error).strip().splitlines()[0]}): save the model's "
            "tokenizer in the same folder"
        ) from error
    return tokenizer


def _merge_adapter(base: PreTrainedModel, source: str, revision: str | None) -> PreTrainedModel:
    import torch
    from peft import PeftModel

    from gptdynamics.measurement.logits import agree_up_to_rounding

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(base, source, revision=revision).eval()
        except UserWarning as warning:
            raise UnusableModelError(
                f"its {ADAPTER_WEIGHTS} lacks weights of its {ADAPTER_CONFIG}: give two files that belong together"
            ) from warning
    [config] = adapted.peft_config.values()
    if config.is_prompt_learning:
        raise UnusableModelError("it is a learned prompt, which cannot be merged: give a LoRA or full model")
    ids = torch.arange(min(8, base.get_input_embeddings().weight.size(0)), device=base.device)[None]
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
    _untie_adapted_embeddings(base)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
            merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    except (AttributeError, NotImplementedError) as error:
        raise UnusableModelError(
            f"adapters of kind {config.peft_type} cannot be merged: give a LoRA or full model"
        ) from error
    merged.eval()
    with torch.no_grad():
        if not agree_up_to_rounding(merged(input_ids=ids).logits, expected):
            raise UnusableModelError(
                f"merging this adapter of kind {config.peft_type} into its base model changes its logits: merge it "
                "where it was trained, and give the full model"
            )
    # peft freezes the base model of an adapter.
    return merged.requires_grad_(True)


def _untie_adapted_embeddings(model: PreTrainedModel) -> None:
    """Give the output layer its own weights if it shares those of input embeddings that have an adapter."""
    import torch

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    adapted = getattr(embedding, "base_layer", None)
    if isinstance(head, torch.nn.Linear) and adapted is not None and head.weight is adapted.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def load_weights(source: str, revision: str | None = None) -> PreTrainedModel:
    """A causal language model from a folder or a Hub id, in fp32 and in evaluation mode.

    `from_pretrained` switches weight tying off for the whole process while it loads. If two threads load at once, it
    may stay off, and tied models that are loaded later lack their output layer. So this function loads one model at a
    time, and ties the output layer itself if other code left tying off.

    Raises:
        OSError, ValueError, RuntimeError: there is no such model, or it cannot be a base model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    check_config(AutoConfig.from_pretrained(source, revision=revision))
    with _LOADING:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and head is not None and head.weight.is_meta:
        head.weight = embedding.weight
    missing = {*loading["missing_keys"], *(mismatch[0] for mismatch in loading["mismatched_keys"])}
    if head is not None and head.weight is embedding.weight:
        tied = {id(head), id(embedding)}
        missing -= {f"{name}.weight" for name, module in model.named_modules() if id(module) in tied}
    if missing:
        raise UnusableModelError(
            f"{len(missing)} of its weights are missing or have another shape, such as {min(missing)}: give the "
            "checkpoint that belongs to its config.json"
        )
    return model.eval()
