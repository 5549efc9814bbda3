"""Gradient products from one pass of each example, against whole gradients, one example at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError
from gptdynamics.gradients import gradient_kernel
from gptdynamics.gradients.uses import Scale
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs.trainable import trainable_copy
from tests.gptdynamics.models.test_model_families import make_model

KINDS = ("gpt_neox", "gpt2", "llama", "llama tied", "llama LoRA", "mixtral", "gemma", "opt", "qwen3_moe")


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = make_model(kind.split()[0])
    assert model is not None
    if kind.endswith("tied"):
        model.config.tie_word_embeddings = True
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    if kind.endswith("LoRA"):
        model = trainable_copy(model, RunSettings("rte_nano", 1e-3, lora_rank=2))
    with torch.no_grad():
        # Adapters start at zero, norms at one.
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    return model.eval()


def make_examples(count: int, seed: int, longest: int = 18) -> list[TokenizedExample]:
    rng = random.Random(seed)

    def tokens(most: int) -> list[int]:
        # From few tokens, so that examples share some.
        return [rng.randrange(3, 30) for _ in range(rng.randint(1, most))]

    return [TokenizedExample.from_parts(tokens(longest), tokens(4)) for _ in range(count)]


def slow_gradient(model: PreTrainedModel, example: TokenizedExample) -> dict[str, torch.Tensor]:
    """One example without padding, logits at every position, one backward pass."""
    ids = torch.tensor(example.ids)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, [place - 1 for place in example.scored]]
    loss = torch.nn.functional.cross_entropy(logits, ids[example.scored])
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    pairs = zip(trained.items(), found, strict=True)
    return {name: torch.zeros_like(value) if each is None else each for (name, value), each in pairs}


def slow_products(
    model: PreTrainedModel,
    pool: list[TokenizedExample],
    tests: list[TokenizedExample],
    moments: dict[str, torch.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The products, and the products of the norms: `[pool, tests]` each."""

    def rows(examples: list[TokenizedExample]) -> torch.Tensor:
        made = []
        for example in examples:
            gradient = slow_gradient(model, example)
            if moments is not None:
                gradient = {name: each * slow_factor(moments[name]) for name, each in gradient.items()}
            made.append(torch.cat([each.flatten().double() for each in gradient.values()]))
        return torch.stack(made)

    left, right = rows(pool), rows(tests)
    return (left @ right.T).numpy(), torch.outer(left.norm(dim=1), right.norm(dim=1)).numpy()


def slow_factor(moment: torch.Tensor) -> torch.Tensor:
    """The root of 1 / sqrt(v), v factored as Adafactor does."""
    moment = moment + 1e-16
    if moment.dim() > 1:
        moment = moment.mean(-1, keepdim=True) * moment.mean(-2, keepdim=True) / moment.mean((-2, -1), keepdim=True)
    return moment.pow(-0.25)


def make_moments(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: torch.rand_like(value) ** 4 for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_products_equal_whole_gradients(kind: str, preconditioned: bool) -> None:
    model = model_of(kind)
    pool, tests = make_examples(9, 1), make_examples(5, 2)
    moments = make_moments(model) if preconditioned else None
    slow, norms = slow_products(model, pool, tests, moments)
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    model.train()
    kernel = gradient_kernel(model, pool, tests, method="exact", second_moments=moments)
    assert kernel.products.dtype == np.float32
    assert (np.abs(kernel.products - slow) / norms).max() < 1e-5
    np.testing.assert_allclose(np.sqrt(np.outer(kernel.pool_norms, kernel.test_norms)), norms, rtol=1e-4)
    assert (kernel.covered, kernel.not_covered, kernel.relative_error) == (1.0, (), 0.0)
    assert model.training
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0])
        assert (value.requires_grad, value.grad) == (before[name][1], None)


@pytest.mark.parametrize("kind", ["llama tied", "gpt2", "mixtral"])
def test_projections_of_no_side_are_exact(kind: str) -> None:
    model = model_of(kind)
    pool, tests = make_examples(4, 1), make_examples(3, 2)
    slow, norms = slow_products(model, pool, tests)
    kernel = gradient_kernel(model, pool, tests, columns=512)
    assert (np.abs(kernel.products - slow) / norms).max() < 1e-5
    assert kernel.relative_error == 0.0


@pytest.mark.parametrize(
    "kind",
    [
        "gpt2",
        "llama tied",
        "llama LoRA",
        pytest.param("gpt_neox", marks=pytest.mark.slow),
        pytest.param("mixtral", marks=pytest.mark.slow),
    ],
)
def test_projected_products_are_unbiased_and_say_their_error(kind: str) -> None:
    model = model_of(kind)
    pool, tests = make_examples(12, 1), make_examples(10, 2)
    moments = make_moments(model) if kind == "gpt2" else None
    if moments is not None:
        # Spread less: else a few numbers, which are not projected, make up nearly all of each product.
        moments = {name: moment + 0.05 for name, moment in moments.items()}
    slow, norms = slow_products(model, pool, tests, moments)
    kernels = [gradient_kernel(model, pool, tests, columns=8, seed=seed, second_moments=moments) for seed in range(24)]
    products = np.stack([kernel.products for kernel in kernels])
    standard_error = products.std(0, ddof=1) / np.sqrt(len(products))
    distance = (products.mean(0) - slow) / standard_error
    # Of 120 pairs: root mean square one, few beyond three.
    assert np.sqrt((distance**2).mean()) < 1.5
    assert np.abs(distance).max() < 5
    true = np.sqrt((((products - slow) / norms) ** 2).mean())
    reported = np.sqrt(np.mean([kernel.cosine_error**2 for kernel in kernels]))
    assert reported == pytest.approx(true, rel=0.3)
    of_norms = np.mean([kernel.test_norms for kernel in kernels], 0)
    assert of_norms == pytest.approx(np.diag(slow_products(model, tests, tests, moments)[0]), rel=0.3)


def test_the_error_relative_to_products_is_reported() -> None:
    model = model_of("llama tied")
    # A pool that holds the test examples has products that are not near zero.
    tests = make_examples(10, 2)
    slow, _ = slow_products(model, tests, tests)
    kernels = [gradient_kernel(model, tests, tests, columns=24, seed=seed) for seed in range(12)]
    true = np.mean([np.sqrt(((kernel.products - slow) ** 2).mean() / (slow**2).mean()) for kernel in kernels])
    assert np.median([kernel.relative_error for kernel in kernels]) == pytest.approx(true, rel=0.3)


@pytest.mark.parametrize(("method", "memory"), [("projected", 200_000), ("exact", 700_000)])
def test_little_memory_gives_the_same_products(method: str, memory: int) -> None:
    model = model_of("llama tied")
    pool, tests = make_examples(12, 1), make_examples(9, 2)
    passes: dict[int, int] = {}

    def take(limit: int) -> np.ndarray:
        kernel = gradient_kernel(
            model,
            pool,
            tests,
            method=method,  # type: ignore[arg-type]
            columns=16,
            memory_limit=limit,
            progress=lambda done, total: passes.update({limit: total}),
        )
        return kernel.products

    much, little = take(2**32), take(memory)
    assert passes[memory] > passes[2**32] == len(pool) + len(tests)
    np.testing.assert_allclose(much, little, rtol=0, atol=1e-5 * np.abs(much).max())


def test_padding_changes_nothing() -> None:
    model = model_of("gpt_neox")
    tests = make_examples(2, 2)
    short = make_examples(3, 3, longest=3)
    alone = gradient_kernel(model, short, tests, method="exact").products
    padded = gradient_kernel(model, [*short, *make_examples(2, 4, longest=40)], tests, method="exact").products
    np.testing.assert_allclose(padded[:3], alone, rtol=0, atol=1e-5 * np.abs(alone).max())


class Scaled(torch.nn.Module):
    """A trainable module whose parameter is used in a way of its own."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = torch.nn.Parameter(torch.tensor([[0.3]]))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.inner(value) * self.scale.exp()


class Joined(torch.nn.Module):
    """Passes the tokens of all rows together, and one of them twice."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        tokens = value.flatten(0, 1)
        return self.inner(torch.cat([tokens, tokens[:1]]))[:-1].view_as(value)


@pytest.mark.parametrize("wrapper", [Scaled, Joined])
@pytest.mark.parametrize("method", ["projected", "exact"])
def test_parameters_of_other_kinds_are_taken_whole(method: str, wrapper: type[torch.nn.Module]) -> None:
    model = model_of("gpt_neox")
    layer = model.base_model.layers[0]
    layer.mlp = wrapper(layer.mlp)
    pool, tests = make_examples(5, 1), make_examples(4, 2)
    slow, norms = slow_products(model, pool, tests)
    kernel = gradient_kernel(model, pool, tests, method=method, columns=512)  # type: ignore[arg-type]
    assert (np.abs(kernel.products - slow) / norms).max() < 1e-5
    assert kernel.covered == 1.0


def test_parameters_too_large_to_be_taken_whole_are_named() -> None:
    # Falcon multiplies by transposed weights in a way of its own.
    model = model_of("falcon")
    pool, tests = make_examples(5, 1), make_examples(4, 2)
    kernel = gradient_kernel(model, pool, tests, method="exact", memory_limit=600_000)
    trained = dict(model.named_parameters())
    assert kernel.not_covered
    assert 0 < kernel.covered < 1
    squares = {"covered": 0.0, "all": 0.0}
    by_length = sorted([*pool, *tests], key=lambda example: example.input_length)
    for example in (by_length[0], by_length[4], by_length[8]):
        for name, gradient in slow_gradient(model, example).items():
            squares["all"] += float(gradient.square().sum())
            squares["covered"] += 0.0 if name in kernel.not_covered else float(gradient.square().sum())
    assert kernel.covered == pytest.approx(squares["covered"] / squares["all"], rel=1e-3)
    for name in kernel.not_covered:
        trained[name].requires_grad_(False)
    slow, norms = slow_products(model, pool, tests)
    assert (np.abs(kernel.products - slow) / norms).max() < 1e-5


def test_what_cannot_be_given_is_refused() -> None:
    model = model_of("llama")
    pool, tests = make_examples(2, 1), make_examples(2, 2)
    with pytest.raises(SettingsError, match="of memory are too little"):
        gradient_kernel(model, pool, tests, memory_limit=1000)
    with pytest.raises(SettingsError, match="second moments: there is none for"):
        gradient_kernel(model, pool, tests, second_moments={})
    with pytest.raises(SettingsError, match="no pool or no test examples"):
        gradient_kernel(model, [], tests)
    with pytest.raises(SettingsError, match="no parameter of the model is trainable"):
        gradient_kernel(model.requires_grad_(False), pool, tests)


def test_factors_of_second_moments_are_those_of_their_outer_product() -> None:
    moment = torch.outer(torch.rand(4), torch.rand(6))
    factor = Scale.of_second_moment(moment, 1e-8).whole(moment.shape)
    torch.testing.assert_close(factor**2, 1 / moment.sqrt(), rtol=1e-4, atol=0)
