"""Folders of other kinds as base models: adapters are merged, what cannot be trained from is refused in one line."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from gptdynamics.configs import RunSettings
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.measurement.logits import logit_route
from gptdynamics.models.base_model import load_base_model, model_revision
from gptdynamics.models.tokens import ExampleTokenizer
from gptdynamics.runs.trainable import trainable_copy

pytestmark = pytest.mark.filterwarnings(
    # Of peft, about a name in transformers.
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


@pytest.fixture
def base(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "base"))


def save_adapter(base: Path, folder: Path) -> Path:
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


def test_an_adapter_is_its_base_with_the_adapter_merged(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter")
    opened = load_base_model(str(adapter))
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    ids = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        torch.testing.assert_close(opened.model(ids).logits, tuned(ids).logits, rtol=1e-5, atol=1e-4)
        assert not torch.allclose(opened.model(ids).logits, load_base_model(str(base)).model(ids).logits, atol=0.1)
    own, _, of_base = opened.revision.partition("+")
    assert len(own) == 12
    assert of_base == model_revision(str(base))
    assert model_revision(str(adapter)) == opened.revision
    names = {name for name, value in opened.model.named_parameters() if value.requires_grad}
    assert names == {name for name, _ in load_base_model(str(base)).model.named_parameters()}
    copied = trainable_copy(opened.model, RunSettings("rte_own", learning_rate=1e-3, lora_rank=2))
    assert all("lora_" in name for name, value in copied.named_parameters() if value.requires_grad)


def test_an_adapter_without_its_base_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter")
    shutil.rmtree(base)
    with pytest.raises(SettingsError, match=r"cannot load base model .*there is no such folder"):
        load_base_model(str(adapter))


MODULES = {"target_modules": ["query_key_value", "dense_h_to_4h"]}


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, use_dora=True, **MODULES),
        LoraConfig(r=2, use_rslora=True, lora_alpha=16, **MODULES),
        LoraConfig(r=2, bias="all", **MODULES),
        LoraConfig(r=2, modules_to_save=["embed_in"], **MODULES),
        LoraConfig(r=2, target_modules=["embed_in", "query_key_value"]),
        LoraConfig(r=2, trainable_token_indices=[5, 6], **MODULES),
        IA3Config(feedforward_modules=["dense_h_to_4h"], **MODULES),
        LoHaConfig(r=2, **MODULES),
    ],
    ids=["dora", "rslora", "bias", "saved_embedding", "embedding", "tokens", "ia3", "loha"],
)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.filterwarnings(
    "ignore:Model (with|has) `tie_word_embeddings:UserWarning", "ignore:Setting `save_embedding_layers`:UserWarning"
)
def test_adapters_of_all_kinds_give_their_own_logits(base: Path, tmp_path: Path, config: object, tied: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
        model.config.tie_word_embeddings = True
        model.save_pretrained(base)
    torch.manual_seed(0)
    tuned = get_peft_model(model, copy.deepcopy(config))  # type: ignore[arg-type]
    with torch.no_grad():
        for value in tuned.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.1)
    tuned.eval().save_pretrained(tmp_path / "adapter")
    own = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter").eval()
    opened = load_base_model(str(tmp_path / "adapter"))
    ids = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        torch.testing.assert_close(opened.model(ids).logits, own(ids).logits, rtol=1e-4, atol=1e-3)


def test_an_adapter_with_another_scale_is_another_model(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter")
    before = model_revision(str(adapter))
    values = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(values | {"lora_alpha": 64}))
    assert model_revision(str(adapter)) != before


def test_an_adapter_without_some_of_its_weights_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    some = sorted(weights)[1:]
    save_file({name: weights[name] for name in some}, adapter / "adapter_model.safetensors")
    with pytest.raises(SettingsError, match=r"adapter_model.safetensors lacks weights .*: give two files"):
        load_base_model(str(adapter))


def test_an_adapter_beside_the_configuration_of_its_base_is_merged(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter")
    alone = load_base_model(str(adapter))
    shutil.copy(base / "config.json", adapter)
    beside = load_base_model(str(adapter))
    assert beside.revision == alone.revision
    for left, right in zip(beside.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(left, right)
    (adapter / "adapter_model.safetensors").rename(adapter / "model.safetensors")
    with pytest.raises(SettingsError, match=r"adapter_config.json without adapter_model.safetensors: add .* or"):
        load_base_model(str(adapter))


def test_an_adapter_on_itself_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter")
    values = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(values | {"base_model_name_or_path": str(adapter)}))
    with pytest.raises(SettingsError, match="leads back to the adapter itself: name its base model there"):
        load_base_model(str(adapter))


def test_learned_prompts_cannot_be_merged(base: Path, tmp_path: Path) -> None:
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), prompts).save_pretrained(tmp_path / "adapter")
    with pytest.raises(SettingsError, match="it is a learned prompt, which cannot be merged"):
        load_base_model(str(tmp_path / "adapter"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def only(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"")


def point(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def remove_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: change_config(folder, quantization_config={"quant_method": "gptq"}), r"quantised \(gptq\)"),
        (lambda folder: change_config(folder, quantization_config={"quant_method": "fp8"}), r"quantised \(fp8\)"),
        (lambda folder: only(folder, "pytorch_model.bin"), "pickle files are not opened"),
        (lambda folder: only(folder, "model-Q4_K_M.gguf"), "has weights as GGUF only"),
        (point, "model.safetensors is a Git LFS pointer"),
        (remove_tokenizer, "it has no tokenizer that can be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678abc"), "cannot load base model"),
        (lambda folder: change_config(folder, model_type="t5"), "t5 is an encoder-decoder"),
        (lambda folder: change_config(folder, num_hidden_layers=3), "of its weights are missing"),
    ],
)
def test_what_cannot_be_trained_from_is_one_line(base: Path, change: Callable[[Path], object], message: str) -> None:
    change(base)
    with pytest.raises(SettingsError, match=message) as caught:
        load_base_model(str(base))
    assert "\n" not in str(caught.value)


def test_a_token_without_embedding_is_named_where_it_occurs(base: Path) -> None:
    opened = load_base_model(str(base))
    opened.tokenizer.add_tokens(["<user>"])
    tokenize = ExampleTokenizer(opened, 64)
    assert tokenize(Example(0, "a fine film", " positive", task="mini_sentiment")).scored
    with pytest.raises(
        DataError,
        match=r"mini_sentiment example 1: its token '<user>' has id 320, but the model has only 320 embeddings",
    ):
        tokenize(Example(1, "<user> a fine film", " positive", task="mini_sentiment"))
    opened.tokenizer.eos_token = "<user>"
    with pytest.raises(DataError, match=r"mini_triples example 2: its token '<user>' has id 320"):
        tokenize(Example(2, "a | b | c", " a b c", task="mini_triples"))


SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.mark.parametrize("cap", [30.0, 1e4])
def test_a_cap_is_seen_where_all_logits_are_small(cap: float) -> None:
    model = Gemma2ForCausalLM(Gemma2Config(head_dim=8, final_logit_softcapping=cap, **SIZES)).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1e-3)
    assert logit_route(model).kind == "positions"


def test_the_short_cut_stays_where_it_is_right() -> None:
    assert logit_route(LlamaForCausalLM(LlamaConfig(**SIZES)).eval()).kind == "head"
    assert logit_route(load_base_model("nano").model).kind == "head"
