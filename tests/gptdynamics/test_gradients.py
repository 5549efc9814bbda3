from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.gradients import GradientSketch, directional_derivatives, directions, gradient_products
from gptdynamics.gradients.directions import forward_derivatives, supports_local
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs import Bench
from gptdynamics.runs.gradient_record import product_steps
from gptdynamics.runs.trainable import trainable_copy


class Scaled(torch.nn.Module):
    """A trainable module that is not linear in its weight."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.inner(value) * self.scale.exp()


def model_of(kind: str, base: BaseModel, settings: RunSettings) -> torch.nn.Module:
    import transformers

    torch.manual_seed(1)
    shape = {"vocab_size": base.model.config.vocab_size, "hidden_size": 32, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "initializer_range": 0.3}
    if kind == "tied":
        config = transformers.GPTNeoXConfig(**shape, intermediate_size=64, tie_word_embeddings=True)
        return transformers.GPTNeoXForCausalLM(config).eval()
    if kind == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).eval()
    if kind == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, intermediate_size=64)).eval()
    model = trainable_copy(base.model, settings)
    if kind == "lora":
        for name, value in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.3)
    if kind == "scaled":
        layer = model.base_model.layers[0]
        layer.mlp = Scaled(layer.mlp)
    return model.eval()


def slow_gradient(model: torch.nn.Module, example: TokenizedExample) -> dict[str, torch.Tensor]:
    """One example, full logits, one backward pass."""
    ids = torch.tensor([*example.prompt, *example.target])
    logits = model(input_ids=ids[None], use_cache=False).logits[0, len(example.prompt) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, ids[len(example.prompt) :])
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    pairs = zip(trained.items(), found, strict=True)
    return {name: torch.zeros_like(value) if each is None else each for (name, value), each in pairs}


def inner(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    return sum(float((left[name].double() * right[name].double()).sum()) for name in left)


@pytest.fixture
def bench(make_settings: Callable[..., RunSettings], rows_folder: Path) -> Bench:
    return Bench.load(make_settings("webnlg_tiny", test_examples=7), rows_folder)


@pytest.mark.parametrize("long_input", [1, 1000])
@pytest.mark.parametrize("kind", ["plain", "tied", "lora", "gpt2", "llama", "scaled"])
def test_derivatives_and_products_equal_separate_backward_passes(
    bench: Bench,
    make_settings: Callable[..., RunSettings],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    long_input: int,
) -> None:
    monkeypatch.setattr(directions, "LONG_INPUT", long_input)
    monkeypatch.setattr(directions, "HELD_AT_ONCE", 3 * 32 * 64)
    model = model_of(kind, bench.base, make_settings(lora_rank=2 if kind == "lora" else 0))
    assert supports_local(model) is (kind != "scaled")
    pool, test = list(bench.tokenized.values())[:4], bench.test_set.tokenized
    of_pool, of_test = ([slow_gradient(model, each) for each in side] for side in (pool, test))
    slow = np.array([[inner(left, right) for right in of_test] for left in of_pool])
    near = 1e-4 * np.abs(slow).max()
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    batches = bench.test_set.losses.batches
    along = directional_derivatives(model, batches, of_pool, len(test))
    np.testing.assert_allclose(along, slow, rtol=0, atol=near)
    for memory in (1, 2**30):
        products = gradient_products(model, pool, test, memory)
        np.testing.assert_allclose(products, slow, rtol=0, atol=near)
    if kind in ("plain", "lora"):
        whole = forward_derivatives(model, batches[0], of_pool).cpu().numpy()
        np.testing.assert_allclose(whole, slow[:, batches[0].rows], rtol=0, atol=near)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0])
        assert (value.requires_grad, value.grad) == (before[name][1], None)
    assert not any(module._forward_hooks for module in model.modules())


def test_sketches_estimate_inner_products_and_follow_their_seed(bench: Bench) -> None:
    pool = list(bench.tokenized.values())[:6]
    exact = gradient_products(bench.base.model, pool, pool)
    vectors = GradientSketch(8192, 0).project(bench.base.model, pool)
    norms = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert (np.abs(vectors @ vectors.T - exact) / norms).max() < 0.08
    assert not np.array_equal(vectors, GradientSketch(8192, 1).project(bench.base.model, pool))


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2, "lora_dropout": 0.5, "learning_rate": 0.05}])
def test_recording_gradients_changes_no_metric_and_small_steps_are_predicted(
    make_settings: Callable[..., RunSettings], rows_folder: Path, changes: dict[str, float]
) -> None:
    small = {"learning_rate": 1e-5, "weight_decay": 0.0} | changes
    plain = Bench.load(make_settings(epochs=2, **small), rows_folder).run("0000")
    recorded = Bench.load(make_settings(epochs=2, gradients="all", **small), rows_folder).run("0000")
    np.testing.assert_array_equal(plain.metrics["loss"], recorded.metrics["loss"])
    assert plain.gradients == {} and plain.products == {}
    shapes = {name: values.shape for name, values in recorded.gradients.items()}
    assert shapes == {"grad_dot": (5, 4), "update_dot": (5, 4)}
    assert list(recorded.products) == product_steps(4) == [0, 1, 2, 3, 4]
    assert {values.shape for values in recorded.products.values()} == {(12, 5)}
    if not changes:
        at_start = recorded.products[0][recorded.curriculum[0]].mean(0)
        scale = np.abs(at_start).max()
        np.testing.assert_allclose(recorded.gradients["grad_dot"][:, 0], at_start, rtol=0, atol=1e-4 * scale)
        moved = np.diff(recorded.metrics["loss"].astype(np.float64))
        np.testing.assert_allclose(recorded.gradients["update_dot"], moved, rtol=0, atol=0.05 * np.abs(moved).max())


def test_only_held_out_runs_record_gradients_unless_all_do() -> None:
    settings = RunSettings("rte_nano", 1e-3, gradients="test")
    assert [settings.follows_gradients(run) for run in ("0000", "0003", "0004", "u0000")] == [False, False, True, False]


def test_products_are_taken_ten_times_evenly_and_at_the_end() -> None:
    assert product_steps(96) == [0, 10, 19, 29, 38, 48, 58, 67, 77, 86, 96]
