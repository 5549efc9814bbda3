from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.configs import RunSettings
from gptdynamics.errors import DataError
from gptdynamics.measurement import Generator, TestSet
from gptdynamics.measurement.generation import sample_tokens
from gptdynamics.measurement.test_set import new_token_limits
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.tokens import tokenize_example
from gptdynamics.tasks import get_task, load_examples


def slow_sample(logits: list[float], draw: float, temperature: float, top_p: float) -> int:
    """One token by nucleus sampling: the smallest set of likeliest tokens with top-p, then the draw among them."""
    scaled = np.array(logits, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    probability = weights / weights.sum()
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    kept: list[int] = []
    total = 0.0
    for token in order:
        if total >= top_p:
            break
        kept.append(token)
        total += probability[token]
    reached = 0.0
    for token in kept:
        reached += probability[token]
        if draw * total < reached:
            return token
    return kept[-1]


@st.composite
def distinct_logits(draw: st.DrawFn) -> list[float]:
    """A row of logits, peaked or nearly flat, without ties."""
    size = draw(st.integers(2, 200))
    spread = draw(st.sampled_from([0.05, 1.0, 8.0]))
    order = np.random.default_rng(draw(st.integers(0, 2**31))).permutation(size)
    return (order * (spread / size)).astype(np.float32).tolist()


@given(
    distinct_logits(),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0.2, 0.7, 1.0, 3.0]),
    st.floats(0.01, 1.0),
)
def test_sampled_token_is_that_of_a_nucleus_loop(
    logits: list[float], draw: float, temperature: float, top_p: float
) -> None:
    token, _ = sample_tokens(torch.tensor([logits]), torch.tensor([draw], dtype=torch.float64), temperature, top_p)
    # A draw within rounding of a boundary may fall on either side of it.
    near = {
        slow_sample(logits, min(max(draw + d, 0), 1 - 1e-9), temperature, min(top_p + p, 1))
        for d in (-1e-5, 0, 1e-5)
        for p in (-1e-5, 0, 1e-5)
    }
    assert token.item() in near


@given(st.lists(distinct_logits(), min_size=2, max_size=5), st.integers(0, 2**31))
def test_a_row_is_sampled_the_same_alone_and_among_others(rows: list[list[float]], seed: int) -> None:
    size = min(map(len, rows))
    logits = torch.tensor([row[:size] for row in rows])
    draws = torch.from_numpy(np.random.default_rng(seed).random(len(rows)))
    together, _ = sample_tokens(logits, draws, 0.7, 0.95)
    alone = [sample_tokens(logits[at : at + 1], draws[at : at + 1], 0.7, 0.95)[0].item() for at in range(len(rows))]
    assert together.tolist() == alone


def test_a_small_top_p_leaves_only_the_likeliest_token() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]]).repeat(50, 1)
    draws = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    assert sample_tokens(logits, draws, 1.0, 0.1)[0].tolist() == [1] * 50


def test_tokens_come_as_often_as_their_probability() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).repeat(20_000, 1)
    draws = torch.from_numpy(np.random.default_rng(0).random(20_000))
    shares = torch.bincount(sample_tokens(logits, draws, 1.0, 1.0)[0]).double() / 20_000
    torch.testing.assert_close(shares, torch.softmax(logits[0].double(), -1), atol=0.01, rtol=0)


def test_ties_are_draws_that_rounding_could_turn() -> None:
    def tied(logits: list[float], draw: float, top_p: float = 1.0) -> bool:
        return sample_tokens(torch.tensor([logits]), torch.tensor([draw], dtype=torch.float64), 1.0, top_p)[1].item()

    first = float(torch.softmax(torch.tensor([2.0, 1.0, 0.0]).double(), -1)[0])
    assert [tied([2.0, 1.0, 0.0], first + far) for far in (-1e-3, -1e-8, 1e-8, 1e-3)] == [False, True, True, False]
    assert [tied([2.0, 1.0, 0.0], 0.8, first + far) for far in (-1e-3, 1e-8, 1e-3)] == [False, True, False]
    assert not tied([2.0, 1.0, 0.0], 0.1, first)
    assert [tied([2.0, 2.0 - apart, 0.0], 0.2) for apart in (1e-2, 1e-6)] == [False, True]


@pytest.mark.parametrize("error", [1e-7, 1e-6])
def test_whatever_rounding_turns_was_counted_as_a_tie(error: float) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(5000, 60)) * 4).float()
    draws = torch.from_numpy(rng.random(5000))
    token, tied = sample_tokens(logits, draws, 0.7, 0.95)
    other, _ = sample_tokens(
        logits + torch.from_numpy(rng.uniform(-error, error, logits.shape)).float(), draws, 0.7, 0.95
    )
    assert tied[token != other].all()
    assert tied.sum() < 50


@pytest.fixture(scope="module")
def ending_base(tiny_base: BaseModel) -> BaseModel:
    """The tiny model, made to end some of its texts early."""
    model = copy.deepcopy(tiny_base.model)
    with torch.no_grad():
        model.get_output_embeddings().weight[tiny_base.tokenizer.eos_token_id] *= 1.7
    return BaseModel(tiny_base.name, tiny_base.revision, model, tiny_base.tokenizer)


def prompts_of(base: BaseModel, rows_folder: Path) -> list[list[int]]:
    examples = load_examples(get_task("webnlg"), "test", 12, rows_folder)
    return [tokenize_example(base.tokenizer, example, base.context, True).prompt for example in examples]


@torch.no_grad()
def slow_texts(
    base: BaseModel, prompts: list[list[int]], seeds: list[list[int]], new_tokens: int, temperature: float
) -> list[str]:
    """One prompt at a time, the whole sequence fed for every token, no cache."""
    texts = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        draws = np.random.default_rng(seed).random(new_tokens)
        sampled: list[int] = []
        for draw in draws:
            logits = base.model(input_ids=torch.tensor([[*prompt, *sampled]]), use_cache=False).logits[0, -1]
            token = slow_sample(logits.tolist(), draw, temperature, 0.95)
            if token == base.tokenizer.eos_token_id:
                break
            sampled.append(token)
        texts.append(base.tokenizer.decode(sampled).strip())
    return texts


@pytest.mark.parametrize("temperature", [0.2, 2.0])
def test_texts_equal_a_loop_without_cache_whatever_they_are_batched_with(
    ending_base: BaseModel, rows_folder: Path, temperature: float
) -> None:
    prompts = prompts_of(ending_base, rows_folder)
    seeds = [[3, 1, 4, at] for at in range(len(prompts))]
    slow = slow_texts(ending_base, prompts, seeds, 12, temperature)
    lengths = {len(ending_base.tokenizer(text)["input_ids"]) for text in slow}
    assert len(lengths) > 2 and len(set(slow)) > 6  # some end early, and they differ
    for batch_tokens in (1, 100, 1_000_000):
        generator = Generator(ending_base.tokenizer, prompts, 12, temperature, 0.95, batch_tokens=batch_tokens)
        texts = generator.sample(ending_base.model, seeds)
        turned = sum(text != other for text, other in zip(texts, slow, strict=True))
        assert turned <= generator.tied <= 2
        assert generator.sampled >= 40


def test_each_prompt_has_its_own_limit_whatever_it_is_batched_with(tiny_base: BaseModel, rows_folder: Path) -> None:
    prompts = prompts_of(tiny_base, rows_folder)
    seeds = [[3, 1, 4, at] for at in range(len(prompts))]
    limits = [1 + 3 * at % 11 for at in range(len(prompts))]
    slow = [
        slow_texts(tiny_base, [prompt], [seed], limit, 2.0)[0]
        for prompt, seed, limit in zip(prompts, seeds, limits, strict=True)
    ]
    assert len(set(limits)) > 5
    for batch_tokens in (1, 100, 1_000_000):
        generator = Generator(tiny_base.tokenizer, prompts, limits, 2.0, 0.95, batch_tokens=batch_tokens)
        assert generator.sample(tiny_base.model, seeds) == slow


def test_texts_follow_their_seeds(tiny_base: BaseModel, rows_folder: Path) -> None:
    prompts = prompts_of(tiny_base, rows_folder)
    generator = Generator(tiny_base.tokenizer, prompts, 8, 2.0, 0.95)
    first = generator.sample(tiny_base.model, [[0, at] for at in range(len(prompts))])
    assert first == generator.sample(tiny_base.model, [[0, at] for at in range(len(prompts))])
    other = generator.sample(tiny_base.model, [[1, at] for at in range(len(prompts))])
    assert sum(one != two for one, two in zip(first, other, strict=True)) > len(prompts) / 2


def test_an_example_is_sampled_the_same_in_a_smaller_test_set(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    task = get_task("webnlg")
    examples = load_examples(task, "test", 12, rows_folder)
    pool = [tokenize_example(tiny_base.tokenizer, example, tiny_base.context, True) for example in examples]
    settings, limits = make_settings("webnlg_tiny", temperature=1.0), new_token_limits(examples, pool)
    whole = TestSet(examples, tiny_base, settings, limits).generate(tiny_base.model, [0, 0, 0])
    some = TestSet(examples[8:4:-1], tiny_base, settings, limits).generate(tiny_base.model, [0, 0, 0])
    for name, values in some.items():
        assert values.tolist() == whole[name][8:4:-1].tolist()


def test_empty_generations_score_zero(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    model = copy.deepcopy(tiny_base.model)
    with torch.no_grad():  # the last hidden state is always ones, and only the end of text answers to it
        norm, head = model.base_model.final_layer_norm, model.get_output_embeddings()
        norm.weight.zero_()
        norm.bias.fill_(1.0)
        head.weight.zero_()
        head.weight[tiny_base.tokenizer.eos_token_id] = 1.0
    silent = BaseModel("silent", "0", model, tiny_base.tokenizer)
    task = get_task("webnlg")
    examples = load_examples(task, "test", 5, rows_folder)
    pool = [tokenize_example(tiny_base.tokenizer, example, tiny_base.context, True) for example in examples]
    test_set = TestSet(examples, silent, make_settings("webnlg_tiny"), new_token_limits(examples, pool))
    scores = test_set.generate(silent.model, [0, 0, 0])
    assert {name: values.tolist() for name, values in scores.items()} == {"bleu": [0] * 5, "rougeL": [0] * 5}


def test_generated_text_is_at_most_the_pools_99th_percentile_long(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    task = get_task("webnlg")
    examples = load_examples(task, "pool", 200, rows_folder)
    pool = [tokenize_example(tiny_base.tokenizer, example, tiny_base.context, True) for example in examples]
    test_set = TestSet(examples[:2], tiny_base, make_settings("webnlg_tiny"), new_token_limits(examples, pool))
    lengths = sorted(len(example.target) for example in pool)
    assert test_set.generator is not None
    assert all(lengths[197] <= limit <= lengths[198] for limit in test_set.generator.new_tokens)


def test_label_tasks_generate_nothing(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    task = get_task("rte")
    test_set = TestSet(load_examples(task, "test", 3, rows_folder), tiny_base, make_settings(), {})
    assert test_set.generator is None
    assert test_set.generate(tiny_base.model, [0, 0, 0]) == {}


def test_limits_are_those_of_each_task(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    examples = [*load_examples(get_task("webnlg"), "pool", 9, rows_folder)]
    examples += load_examples(get_task("wmt16"), "pool", 5, rows_folder)
    tokens = [tokenize_example(tiny_base.tokenizer, example, tiny_base.context, True) for example in examples]
    limits = new_token_limits(examples, tokens)
    for task, chosen in (("webnlg", tokens[:9]), ("wmt16", tokens[9:])):
        assert limits[task] == int(np.ceil(np.percentile([len(each.target) for each in chosen], 99)))
    test = [load_examples(get_task(task), "test", 1, rows_folder)[0] for task in ("wmt16", "rte", "webnlg")]
    test_set = TestSet(test, tiny_base, make_settings("flan_tiny"), limits)
    assert test_set.generator is not None
    assert test_set.generator.new_tokens == [limits["wmt16"], limits["webnlg"]]
    with pytest.raises(DataError, match="the pool has no example of task wmt16, which the test set has"):
        TestSet(test, tiny_base, make_settings("flan_tiny"), {"webnlg": 7})


def test_texts_are_sampled_and_scored_only_for_examples_of_generation_tasks(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    test = load_examples(get_task("flan"), "test", 2, rows_folder)
    limits, settings = {"webnlg": 9, "wmt16": 6}, make_settings("flan_tiny", temperature=1.0)
    together = TestSet(test, tiny_base, settings, limits).generate(tiny_base.model, [0, 1, 2])
    assert together.keys() == {"bleu", "rougeL"}
    for name, values in together.items():
        for at, example in enumerate(test):
            alone = TestSet([example], tiny_base, settings, limits).generate(tiny_base.model, [0, 1, 2])
            assert values.dtype == np.float32
            assert np.isnan(values[at]) if example.task not in limits else values[at] == alone[name][0]
