"""Losses, updates, gradients and text of every family of causal language models: the model's own, or refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gptdynamics.errors import SettingsError
from gptdynamics.gradients import directional_derivatives, gradient_products
from gptdynamics.measurement.generation import Generator
from gptdynamics.measurement.logits import logit_route, target_logits
from gptdynamics.measurement.loss import TargetLosses, example_losses
from gptdynamics.models.tokens import TokenizedExample, make_target_batch

# Sizes by the names that families have for them; a family takes those that its config has.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "word_embed_proj_dim", "embedding_size", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_shared_experts", "first_k_dense_replace", "n_group", "topk_group"), 1),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "mamba_expand"), 2),
    **dict.fromkeys(("head_dim", "rotary_dim", "state_size", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "time_step_rank"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("attention_window_size", "window_size"), 8),
    "vocab_size": 99,
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
LATENT |= {"num_key_value_heads": 4}
# What some families need besides.
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu", "longcat_flash"), LATENT),
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.1},
    "gemma2": {"final_logit_softcapping": 30.0},
}
MOST_WEIGHTS = 3_000_000


def make_config(kind: str) -> Any:
    made = type(AutoConfig.for_model(kind))
    values = made().to_dict()
    known = {*values, *made.attribute_map}
    # Dropout would make training's losses others than evaluation's.
    none = {name: 0.0 for name, value in values.items() if "drop" in name and isinstance(value, float)}
    return made(**{name: value for name, value in SMALL.items() if name in known} | none | OWN.get(kind, {}))


def make_model(kind: str) -> PreTrainedModel | None:
    """A tiny random model; None: these sizes do not make one."""
    try:
        config = make_config(kind)
        with torch.device("meta"):
            if AutoModelForCausalLM.from_config(config).num_parameters() > MOST_WEIGHTS:
                return None
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
    except Exception:
        return None
    # Their caches cannot be made where all layers of a tiny model are of one kind.
    model.config.use_cache = False
    # Weights spread wide: logits as large as those of trained models, which caps and scales show in.
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)
    return model


def own_loss(model: PreTrainedModel, example: TokenizedExample) -> torch.Tensor:
    ids = torch.tensor([example.ids])
    labels = torch.full_like(ids, -100)
    labels[0, example.scored] = ids[0, example.scored]
    return model(input_ids=ids, labels=labels, use_cache=False).loss


class Numbers:
    """Decodes ids to their numbers."""

    eos_token_id = 2

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def examples() -> list[TokenizedExample]:
    draw = np.random.default_rng(0).integers
    lengths = ((9, 3), (4, 1), (1, 5))
    return [
        TokenizedExample.from_parts(draw(3, 99, one).tolist(), draw(3, 99, other).tolist()) for one, other in lengths
    ]


# Not causal, no loss of the next token, or more than tokens is needed.
REFUSED = {
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "cpmant", "marian", "mbart", "mvp", "pegasus",
    "plbart", "prophetnet", "trocr", "whisper", "xlm", "xlnet", "xmod",
}  # fmt: skip
# Must be there, whatever else a release of transformers has.
EQUAL = {
    "afmoe", "apertus", "arcee", "aria_text", "bamba", "bert", "bert-generation", "big_bird", "biogpt", "bitnet",
    "bloom", "camembert", "codegen", "cohere", "cohere2", "cohere2_moe", "cwm", "deepseek_v2", "deepseek_v3",
    "diffllama", "doge", "dots1", "electra", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "falcon",
    "falcon_mamba", "flex_olmo", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "glm4_moe", "glm4_moe_lite",
    "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gpt_oss", "gptj", "granite", "granitemoe",
    "granitemoehybrid", "granitemoeshared", "helium", "hunyuan_v1_dense", "jamba", "jetmoe", "lfm2", "llama",
    "llama4_text", "longcat_flash", "mamba", "minicpm3", "minimax", "ministral", "mistral", "mixtral",
    "modernbert-decoder", "mpt", "nanochat", "nemotron", "olmo", "olmo2", "olmo3", "olmo_hybrid", "olmoe",
    "openai-gpt", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "qwen3_next", "recurrent_gemma", "roberta", "roformer", "rwkv", "seed_oss", "smollm3", "stablelm", "starcoder2",
    "vaultgemma", "xglm", "xlstm", "youtu",
}  # fmt: skip
# One or two of each kind: positions, attention, experts, states in place of attention, mixtures of both, scaled or
# capped logits, encoders as decoders. All others are built of the same parts.
QUICK = {
    "bloom", "cohere", "deepseek_v3", "falcon_mamba", "gemma2", "gpt2", "gpt_neo", "gpt_neox", "gpt_oss", "granite",
    "jamba", "llama", "mixtral", "mpt", "olmo_hybrid", "openai-gpt", "opt", "phi3", "qwen3", "recurrent_gemma",
    "roberta", "rwkv", "smollm3", "xlstm", "bart", "whisper", "xlm", "xlnet",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in sorted(EQUAL | REFUSED)],
)
def test_every_family_is_measured_as_it_measures_itself_or_refused(kind: str, examples: list[TokenizedExample]) -> None:
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip(f"this transformers has no {kind}")
    torch.manual_seed(0)
    model = make_model(kind)
    assert model is not None
    if kind in REFUSED:
        with pytest.raises(SettingsError, match=f"^{type(model).__name__}(:| is| expects) .*[.] Give a"):
            logit_route(model)
        return
    copied = copy.deepcopy(model)
    state = torch.get_rng_state()
    logit_route(model)
    assert torch.equal(state, torch.get_rng_state())
    trained = [value for value in model.parameters() if value.requires_grad]
    losses = [own_loss(model, example) for example in examples]
    expected = np.array([loss.item() for loss in losses])
    np.testing.assert_allclose(TargetLosses(examples).measure(model)[0], expected, rtol=2e-5)

    found = [torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True) for loss in losses]
    own = torch.stack([torch.cat([each.flatten() for each in one]) for one in found]).double()
    products = (own @ own.T).numpy()
    np.testing.assert_allclose(
        gradient_products(model, examples, examples), products, rtol=0, atol=2e-5 * np.abs(products).max()
    )
    direction = {name: value.detach().sign() for name, value in model.named_parameters() if value.requires_grad}
    batch = make_target_batch(examples, list(range(len(examples))))
    along = (own @ torch.cat([each.flatten() for each in direction.values()]).double()).numpy()
    derivatives = directional_derivatives(model, [batch], [direction], len(examples))[0]
    np.testing.assert_allclose(derivatives, along, rtol=0, atol=5e-5 * max(1.0, np.abs(along).max()))

    # A copy that has been probed as it is trained.
    copied.train()
    loss = example_losses(target_logits(copied, batch), batch).mean()
    weights = [value for value in copied.parameters() if value.requires_grad]
    update = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    mean = own.mean(0)
    apart = (torch.cat([each.flatten() for each in update]) - mean).abs().max()
    assert apart <= 2e-5 * mean.abs().max()

    prompts, seeds = [example.prompt for example in examples], [[1], [2], [3]]
    together, alone = (
        Generator(Numbers(), prompts, 4, 1.0, 1.0, batch_tokens=size).sample(model, seeds)  # type: ignore[arg-type]
        for size in (999, 1)
    )
    assert together == alone


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_frequencies_that_a_length_chooses_are_those_of_each_sequence(kind: str) -> None:
    """LongRoPE takes other frequencies for a whole batch, and cached keys are of the old ones."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "original_max_position_embeddings": 16}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, **factors}
    config = AutoConfig.for_model(
        kind,
        **{name: value for name, value in SMALL.items() if name in AutoConfig.for_model(kind, pad_token_id=0).to_dict()}
        | {"rope_parameters": rope},
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
    draw = np.random.default_rng(0).integers
    # On either side of the limit, and at it: of 17 tokens, 16 are fed in.
    lengths = ((40, 3), (9, 1), (14, 2), (14, 3), (15, 3))
    examples = [
        TokenizedExample.from_parts(draw(3, 99, one).tolist(), draw(3, 99, other).tolist()) for one, other in lengths
    ]
    expected = np.array([own_loss(model, example).item() for example in examples])
    np.testing.assert_allclose(TargetLosses(examples).measure(model)[0], expected, rtol=2e-5)

    prompts = [example.prompt for example in examples[1:]]
    texts = Generator(Numbers(), prompts, 12, 1e-6, 0.5).sample(model, [[each] for each in range(4)])  # type: ignore[arg-type]
    for prompt, text in zip(prompts, texts, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 12:
            likeliest = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if likeliest == Numbers.eos_token_id:
                break
            ids.append(likeliest)
        assert text == " ".join(map(str, ids[len(prompt) :]))
