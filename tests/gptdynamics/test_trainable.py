from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError
from gptdynamics.models.base_model import BaseModel
from gptdynamics.runs import Bench
from gptdynamics.runs.trainable import trainable_copy

Make = Callable[..., RunSettings]
LORA = {"lora_rank": 3, "lora_alpha": 6, "lora_dropout": 0.25}


def other_model(kind: str, vocabulary: int) -> transformers.PreTrainedModel:
    """A random model of another family, as small as the tiny one."""
    torch.manual_seed(2)
    shape = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"max_position_embeddings": 64, "initializer_range": 0.3}
    if kind == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).eval()
    if kind == "llama":
        config = transformers.LlamaConfig(**shape, num_key_value_heads=1, intermediate_size=64)
        return transformers.LlamaForCausalLM(config).eval()
    config = transformers.BloomConfig(vocab_size=vocabulary, hidden_size=32, n_layer=1, n_head=2)
    model = transformers.BloomForCausalLM(config).eval()
    attention = model.base_model.h[0].self_attention
    attention.everything = attention.query_key_value
    del attention.query_key_value
    return model


def trainable_names(model: torch.nn.Module) -> list[str]:
    return [name for name, value in model.named_parameters() if value.requires_grad]


def adapted_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A") and module.lora_A}


def test_without_a_rank_every_weight_is_trainable_and_none_is_shared(tiny_base: BaseModel, make_settings: Make) -> None:
    copied = trainable_copy(tiny_base.model, make_settings())
    assert trainable_names(copied) == [name for name, _ in tiny_base.model.named_parameters()]
    own = {value.data_ptr() for value in copied.parameters()}
    assert not own & {value.data_ptr() for value in tiny_base.model.parameters()}


def test_adapters_are_on_query_key_and_value_with_rank_alpha_and_dropout_as_asked(
    tiny_base: BaseModel, make_settings: Make
) -> None:
    model = trainable_copy(tiny_base.model, make_settings(**LORA))
    adapted = adapted_modules(model)
    assert {name.rsplit(".", 1)[-1] for name in adapted} == {"query_key_value"}
    assert len(adapted) == 2
    for module in adapted.values():
        assert module.lora_A["default"].weight.shape == (3, 32)
        assert module.lora_B["default"].weight.shape == (96, 3)
        assert module.scaling["default"] == 6 / 3
        assert module.lora_dropout["default"].p == 0.25
    assert all("lora_" in name for name in trainable_names(model))
    assert len(trainable_names(model)) == 4
    assert type(model) is type(tiny_base.model)


@pytest.mark.parametrize(
    ("kind", "targets", "shapes"),
    [
        ("gpt2", {"c_attn"}, {(3, 32), (96, 3)}),
        ("llama", {"q_proj", "k_proj", "v_proj"}, {(3, 32), (32, 3), (16, 3)}),
    ],
)
def test_other_families_have_adapters_on_query_key_and_value_too(
    tiny_base: BaseModel, make_settings: Make, kind: str, targets: set[str], shapes: set[tuple[int, ...]]
) -> None:
    base = other_model(kind, len(tiny_base.tokenizer))
    model = trainable_copy(base, make_settings(**LORA)).eval()
    assert {name.rsplit(".", 1)[-1] for name in adapted_modules(model)} == targets
    assert all("lora_" in name for name in trainable_names(model))
    trained = [value for value in model.parameters() if value.requires_grad]
    assert {tuple(value.shape) for value in trained} == shapes
    # New adapters add nothing yet; trained ones add A, then B, times alpha / rank to what the projection gives.
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, base(ids).logits)
        for value in trained:
            torch.nn.init.normal_(value, std=0.5)
        (name, module), *_ = adapted_modules(model).items()
        given = torch.randn(4, 32)
        added = given @ module.lora_A["default"].weight.T @ module.lora_B["default"].weight.T * 2
        torch.testing.assert_close(module(given), base.get_submodule(name)(given) + added)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_runs_of_other_families_train_their_adapters(
    tiny_base: BaseModel, make_settings: Make, rows_folder: Path, kind: str
) -> None:
    bench = Bench.load(make_settings(**LORA, learning_rate=0.05), rows_folder)
    model = other_model(kind, len(tiny_base.tokenizer))
    bench.base = replace(tiny_base, model=model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = bench.run("0000")
    assert np.abs(run.metrics["loss"][:, -1] - run.metrics["loss"][:, 0]).max() > 1e-3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_known_projections_is_refused_for_adapters_only(
    tiny_base: BaseModel, make_settings: Make
) -> None:
    model = other_model("bloom", len(tiny_base.tokenizer))
    with pytest.raises(SettingsError, match=r"no query, key and value projections for LoRA .*. Set lora_rank = 0"):
        trainable_copy(model, make_settings(lora_rank=2))
    trainable_copy(model, make_settings())


@pytest.mark.parametrize("config", ["rte_tiny", "webnlg_tiny"])
def test_a_run_with_adapters_moves_the_losses_and_leaves_the_base_model_alone(
    make_settings: Make, rows_folder: Path, config: str
) -> None:
    bench = Bench.load(make_settings(config, **LORA, learning_rate=0.05), rows_folder)
    before = {name: value.clone() for name, value in bench.base.model.state_dict().items()}
    run = bench.run("0000")
    moved = np.abs(np.diff(run.metrics["loss"])).max(0)
    assert (moved > 1e-3).all()
    np.testing.assert_array_equal(run.metrics["loss"][:, 0], bench.test_set.measure(bench.base.model)["loss"])
    after = bench.base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_the_same_run_with_adapters_gives_identical_arrays(make_settings: Make, rows_folder: Path) -> None:
    settings = make_settings("webnlg_tiny", **LORA, learning_rate=0.05)
    bench = Bench.load(settings, rows_folder)
    other = bench.run("0001")
    first, again = bench.run("0000"), Bench.load(settings, rows_folder).run("0000")
    for name, values in first.metrics.items():
        np.testing.assert_array_equal(values, again.metrics[name])
    assert (first.metrics["loss"][:, 1:] != other.metrics["loss"][:, 1:]).any()


def test_rank_alpha_and_dropout_each_change_a_run(make_settings: Make, rows_folder: Path) -> None:
    bench = Bench.load(make_settings(**LORA, learning_rate=0.05), rows_folder)
    last = {"as asked": bench.run("0000").metrics["loss"][:, -1]}
    for change in ({"lora_rank": 2}, {"lora_alpha": 1}, {"lora_dropout": 0.0}):
        bench.settings = make_settings(**(LORA | change), learning_rate=0.05)
        last[str(change)] = bench.run("0000").metrics["loss"][:, -1]
    assert len({values.tobytes() for values in last.values()}) == 4


@pytest.mark.parametrize("lora", [{}, LORA])
def test_bf16_passes_give_nearly_the_losses_of_fp32(
    make_settings: Make, rows_folder: Path, lora: dict[str, Any]
) -> None:
    settings = make_settings("webnlg_tiny", learning_rate=3e-3, **lora)
    exact = Bench.load(settings, rows_folder).run("0000")
    mixed = Bench.load(replace(settings, precision="bf16"), rows_folder).run("0000")
    losses = mixed.metrics["loss"]
    assert losses.dtype == np.float32
    assert (losses != exact.metrics["loss"]).any()
    np.testing.assert_allclose(losses, exact.metrics["loss"], rtol=0.05)


def test_bf16_passes_update_weights_of_fp32(
    make_settings: Make, rows_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizers: list[torch.optim.AdamW] = []

    class Kept(torch.optim.AdamW):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            optimizers.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Kept)
    bench = Bench.load(make_settings(precision="bf16", learning_rate=1e-5, epochs=2), rows_folder)
    bench.run("0000")
    (optimizer,) = optimizers
    updated = optimizer.param_groups[0]["params"]
    assert {value.dtype for value in updated} == {torch.float32}
    # Sums of updates this small are lost in weights of bf16, which has eight bits.
    for value, before in zip(updated, bench.base.model.parameters(), strict=True):
        assert not torch.equal(value, before)
        assert (value - before).abs().max() < 1e-4
