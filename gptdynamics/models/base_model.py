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

# Commits of EleutherAI/pythia-<size>-deduped. That of 2.8b is the one that holds its weights as safetensors.
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


# What the files of tokenizers are called.
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
# Of a model that knows none: longer than any text.
NO_LIMIT = 2**31 - 1
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")


@dataclass(frozen=True)
class BaseModel:
    """A model that runs start from.

    Attributes:
        name: as given: `nano`, `smollm2`, a Pythia size, a folder, or a Hub id with or without a revision.
        revision: commit of the Hub, or for a folder the first 12 hex digits of its weights' SHA-256; of an adapter its
            own (of its configuration, too) and, after a plus sign, its base model's.
        model: fp32 weights, in evaluation mode.
        tokenizer: with an end-of-text token.
    """

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """Longest input in tokens; `NO_LIMIT` where the architecture has none (recurrences, ALiBi)."""
        config = self.model.config.get_text_config()
        given = (getattr(config, name, None) for name in _LENGTHS)
        longest = next((value for value in given if isinstance(value, int) and value > 0), NO_LIMIT)
        # Positions of RoBERTa's kind are counted from after the one of padding.
        offsets = [
            module.padding_idx + 1
            for name, module in self.model.named_modules()
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        ]
        return longest - max(offsets, default=0)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has embeddings of; its tokenizer may know more."""
        return int(self.model.get_input_embeddings().weight.size(0))


def base_model_source(name: str) -> tuple[str, str | None]:
    """What `from_pretrained` is given for a base model's name: a folder or a Hub id, and the revision if one is named.

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
        # As datasets and simulators name a folder.
        folder = remembered_folder(name)
        if folder is not None:
            return str(folder), None
    source, _, revision = name.rpartition("@")
    if source and revision and not Path(name).exists():
        return source, revision
    return name, None


def unpublished_note(name: str, remedy: str = "collect with --base-model <owner>/<name>") -> str | None:
    """What to tell who publishes what was made from a base model that others cannot get; None: they can.

    Args:
        name: as of `base_model_source`.
        remedy: how runs come to name the published model.
    """
    source, _ = base_model_source(name)
    if name in SIZES or (is_hub_id(source) and not Path(source).is_dir()):
        return None
    return (
        f"the base model {name} is a folder, which others cannot get: publish it with gptdynamics push-base, and "
        f"{remedy}"
    )


def model_revision(name: str) -> str:
    """What identifies a base model's weights: see `BaseModel.revision`.

    Raises:
        SettingsError: it is neither a folder with weights nor on a reachable Hub.
    """
    return _revision(name, ())


def _revision(name: str, adapters: tuple[str, ...]) -> str:
    """As `model_revision`; `adapters` are those that lead to this base model."""
    source, revision = base_model_source(name)
    if name == "smollm2" and Path(source).is_dir():
        return check_smollm2(Path(source))
    try:
        if Path(source).is_dir():
            folder = Path(source)
            own = weights_digest(folder) if _adapter_config(source, "") is None else adapter_digest(folder)
        elif "/" in source and not is_hub_id(source):
            raise FileNotFoundError("there is no such folder, and a Hub id is <owner>/<name>")
        elif not is_hub_id(source):
            raise FileNotFoundError(
                "there is no such folder here. Datasets and simulators name a folder without its path: put it, or a "
                "link to it, where you are"
            )
        else:
            from huggingface_hub import HfApi

            own = str(HfApi().resolve_revision(source, revision=revision).resolved)
        adapter = _adapter_config(source, own)
        if adapter is None:
            return own
        base, base_revision = adapter_base(adapter)
    except _unloadable() as error:
        raise _cannot_load(name, error) from error
    below = _named(base, base_revision)
    if below in (*adapters, name):
        reason = UnusableModelError(f"its {ADAPTER_CONFIG} names an adapter that is on itself: name the model below it")
        raise _cannot_load(name, reason)
    return f"{own}+{_revision(below, (*adapters, name))}"


def _named(source: str, revision: str | None) -> str:
    return source if revision is None or Path(source).is_dir() else f"{source}@{revision}"


def _adapter_config(source: str, commit: str) -> Path | None:
    """The file that makes a folder or repository an adapter of peft; None: it is a whole model."""
    if Path(source).is_dir():
        path = Path(source) / ADAPTER_CONFIG
        if not path.is_file():
            return None
        if (Path(source) / ADAPTER_WEIGHTS).is_file() or not (Path(source) / "config.json").is_file():
            return path
        raise UnusableModelError(
            f"it has an {ADAPTER_CONFIG} without {ADAPTER_WEIGHTS}: add these weights, or, where its own are whole, "
            f"move {ADAPTER_CONFIG} away"
        )
    from transformers.utils import cached_file

    # As transformers has it: where an adapter lies beside whole weights, the adapter on its base model is meant.
    whole, adapter, weights = (
        cached_file(source, file, revision=commit, _raise_exceptions_for_missing_entries=False)
        for file in ("config.json", ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    )
    return Path(adapter) if adapter and (weights or not whole) else None


def _unloadable() -> tuple[type[Exception], ...]:
    """What the libraries raise where a model cannot be had."""
    from huggingface_hub.errors import HFValidationError, RevisionResolutionError
    from safetensors import SafetensorError

    return (OSError, ValueError, KeyError, RuntimeError, SafetensorError, RevisionResolutionError, HFValidationError)


def _cannot_load(name: str, error: Exception) -> SettingsError:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    advice = ""
    if isinstance(error, RepositoryNotFoundError):
        reason = "the Hub has no such model, or your token does not open it"
    elif isinstance(error, RevisionNotFoundError):
        reason = "it has no such commit, branch or tag"
    else:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rstrip(".:")
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            reason = "it needs Python code of its repository, which is not run here"
            advice = "Give a model of an architecture that transformers has. "
        elif "Unrecognized configuration class" in reason:
            reason = "it is no causal language model"
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
        SettingsError: it cannot be found or is not a causal language model.
    """
    from gptdynamics.measurement.logits import logit_route

    source, _ = base_model_source(name)
    revision = model_revision(name)
    # All files of one commit, even if the repository changes meanwhile.
    commit = None if Path(source).is_dir() else revision.partition("+")[0]
    try:
        adapter = _adapter_config(source, commit or "")
        if adapter is None:
            model, tokenizer = load_weights(source, commit), _load_tokenizer(source, commit)
        else:
            base = load_base_model(_named(*adapter_base(adapter)))
            model = _merge_adapter(base.model, source, commit)
            tokenizer = _load_tokenizer(source, commit, base.tokenizer)
    except _unloadable() as error:
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
    source: str, revision: str | None, otherwise: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """A model's tokenizer; `otherwise`, where it has none of its own."""
    from transformers import AutoTokenizer

    try:
        folder = Path(source)
        if folder.is_dir() and not any(path for kind in _TOKENIZER_FILES for path in folder.glob(kind)):
            # transformers would make an empty one of the model's type.
            raise FileNotFoundError("the folder has none")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, revision=revision)
    except _unloadable() as error:
        if otherwise is not None:
            return otherwise
        if "trust_remote_code" in str(error):
            raise
        raise UnusableModelError(
            f"it has no tokenizer that can be loaded ({str(error).strip().splitlines()[0]}): save the tokenizer of the "
            "model beside it"
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
                f"its {ADAPTER_WEIGHTS} lacks weights that its {ADAPTER_CONFIG} asks for: give the files that belong "
                "together"
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
                f"merged into its base model, this adapter of kind {config.peft_type} gives other logits than it gives "
                "itself: merge it where it was trained, and give the full model"
            )
    # peft freezes a base model when it puts an adapter on it.
    return merged.requires_grad_(True)


def _untie_adapted_embeddings(model: PreTrainedModel) -> None:
    """Give the output layer weights of its own where an adapter is on the input embeddings alone that it shares."""
    import torch

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    adapted = getattr(embedding, "base_layer", None)
    if isinstance(head, torch.nn.Linear) and adapted is not None and head.weight is adapted.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def load_weights(source: str, revision: str | None = None) -> PreTrainedModel:
    """A causal language model from a folder or a Hub id, in fp32 and in evaluation mode.

    `from_pretrained` switches tying off for the whole process while it loads. If two threads load at once it may stay
    off, and every tied model that is loaded afterwards comes without its output layer. So models are loaded one at a
    time here, and where other code left tying off, the output layer is tied again.

    Raises:
        OSError, ValueError, RuntimeError: there is no such model, or it can be no base model.
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
    absent = {*loading["missing_keys"], *(each[0] for each in loading["mismatched_keys"])}
    if head is not None and head.weight is embedding.weight:
        tied = {id(head), id(embedding)}
        absent -= {f"{name}.weight" for name, module in model.named_modules() if id(module) in tied}
    if absent:
        raise UnusableModelError(
            f"{len(absent)} of its weights are missing or of another shape, such as {min(absent)}: give the checkpoint "
            "that belongs to its config.json"
        )
    return model.eval()
