"""Operations of runs: against torch's own count, and how they grow; devices and hours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError
from gptdynamics.estimates import (
    PYTHIA_SHAPES,
    Lengths,
    ModelShape,
    RunFlops,
    base_shape,
    kernel_seconds,
    plan_hours,
    run_flops,
    shape_of,
    task_lengths,
    throughput,
)
from gptdynamics.estimates.flops import (
    DERIVATIVE_PASSES,
    GENERATION_SHARE,
    GPU_LOSS_BATCH_TOKENS,
    GPU_TEXT_BATCH_TOKENS,
    LOSS_BATCH_TOKENS,
    TEXT_BATCH_TOKENS,
    forward_flops,
    generation_flops,
    kernel_flops,
    layer_calls,
    loss_flops,
    measurements,
    product_flops,
    update_flops,
)
from gptdynamics.estimates.throughput import GPU_LAYER_SECONDS, GPU_UTILISATION, PEAKS
from gptdynamics.gradients import directional_derivatives, gradient_kernel, gradient_products
from gptdynamics.measurement import generation, loss
from gptdynamics.measurement.generation import Generator
from gptdynamics.measurement.logits import logit_route
from gptdynamics.measurement.loss import TargetLosses, example_losses, target_logits
from gptdynamics.models.tokens import TokenizedExample, make_target_batch
from gptdynamics.plans import Plan, PlanEntry, read_plan
from gptdynamics.runs.trainable import trainable_copy
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks import get_task

CONFIG = GPTNeoXConfig(
    vocab_size=512,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=128,
)
SHAPE = ModelShape(3, 64, 4, 256, 512, 128)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    # torch does not count the CPU's fused attention.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPTNeoXForCausalLM._from_config(CONFIG, attn_implementation="eager").eval()


def examples(count: int, spread: int = 1, target: int = 5) -> list[TokenizedExample]:
    rng = np.random.default_rng(0)
    return [
        TokenizedExample.from_parts(
            rng.integers(1, 512, 20 + at % spread * 3).tolist(), rng.integers(1, 512, target).tolist()
        )
        for at in range(count)
    ]


class Untracked:
    """Stands for what tells torch's counter which module runs: that takes hooks which `autograd.grad` refuses."""

    parents = ("Global",)

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def counted(work: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter:
        work()
    return counter.get_total_flops()


def lengths_of(chosen: list[TokenizedExample]) -> Lengths:
    return Lengths(tuple((len(each.prompt), len(each.target)) for each in chosen))


@pytest.mark.parametrize("rank", [0, 4])
def test_update_agrees_with_count(model: PreTrainedModel, rank: int) -> None:
    chosen = examples(4)
    if rank:
        # Of three blocks the first, whose input needs no gradient, would count for a third.
        config = GPTNeoXConfig(**CONFIG.to_dict() | {"num_hidden_layers": 12})
        model = GPTNeoXForCausalLM._from_config(config, attn_implementation="eager")
    copied = trainable_copy(model, RunSettings("rte_tiny", 1e-3, lora_rank=rank)).train()

    shape = shape_of(copied.config)
    # The trial of the model's logits comes once for each model, not with each update.
    logit_route(copied)

    def update() -> None:
        batch = make_target_batch(chosen, list(range(4)))
        example_losses(target_logits(copied, batch), batch).mean().backward()

    assert update_flops(shape, 4, lengths_of(chosen), rank) == pytest.approx(counted(update), rel=0.1)


@pytest.mark.parametrize("spread", [1, 12])
def test_loss_agrees_with_count(model: PreTrainedModel, spread: int) -> None:
    chosen = examples(60, spread)
    measured = counted(lambda: TargetLosses(chosen).measure(model))
    assert loss_flops(SHAPE, 60, lengths_of(chosen)) == pytest.approx(measured, rel=0.1)


def test_generation_agrees_with_count(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    # No text ends before its limit.
    monkeypatch.setattr(
        "gptdynamics.measurement.generation.sample_tokens",
        lambda logits, *rest: (torch.full((len(logits),), 7), torch.zeros(len(logits), dtype=torch.bool)),
    )

    class Tokenizer:
        eos_token_id = 0

        def decode(self, ids: list[int], **options: Any) -> str:
            return str(len(ids))

    chosen = examples(20, 2)
    generator = Generator(Tokenizer(), [each.prompt for each in chosen], 16, 0.2, 0.95)
    texts: list[str] = []
    measured = counted(lambda: texts.extend(generator.sample(model, [[at] for at in range(20)])))
    assert set(texts) == {"16"}
    assert generation_flops(SHAPE, 20, lengths_of(chosen), 16, 128) == pytest.approx(measured, rel=0.1)


def test_gradients_agree_with_count(model: PreTrainedModel) -> None:
    chosen = examples(30)
    losses = TargetLosses(chosen)
    direction = {name: torch.ones_like(value) for name, value in model.named_parameters()}
    measured = counted(lambda: directional_derivatives(model, losses.batches, [direction, direction], 30))
    predicted = DERIVATIVE_PASSES * loss_flops(SHAPE, 30, lengths_of(chosen))
    assert predicted == pytest.approx(measured, rel=0.1)


def test_products_agree_with_count(model: PreTrainedModel) -> None:
    chosen = examples(8)
    passes = 2 * sum(forward_flops(SHAPE, len(each) - 1, (len(each) - 1) ** 2, 5) for each in chosen)
    # torch counts no matrix-vector product: those are the 2 pool test weights.
    measured = counted(lambda: gradient_products(model, chosen, chosen))
    predicted = product_flops(SHAPE, 8, 8, passes)
    assert predicted - 2 * 8 * 8 * SHAPE.weights == pytest.approx(measured, rel=0.1)


def test_forward_is_linear_in_each_part() -> None:
    assert forward_flops(SHAPE, 2, 0, 0) == 2 * forward_flops(SHAPE, 1, 0, 0) == 4 * SHAPE.block_weights
    assert forward_flops(SHAPE, 0, 9, 0) == 9 * 4 * 3 * 64
    assert forward_flops(SHAPE, 0, 0, 1) == 2 * 64 * 512
    assert forward_flops(replace(SHAPE, layers=6), 5, 7, 0) == 2 * forward_flops(SHAPE, 5, 7, 0)


def test_loss_grows_with_examples_and_square() -> None:
    short, long = Lengths(((19.0, 2.0),)), Lengths(((39.0, 2.0),))
    assert loss_flops(SHAPE, 10, short) == 10 * loss_flops(SHAPE, 1, short)
    quadratic = loss_flops(SHAPE, 1, long) - 2 * loss_flops(SHAPE, 1, short)
    assert quadratic == 4 * 3 * 64 * (40**2 - 2 * 20**2) - 2 * 2 * 64 * 512


def test_full_update_is_three_forward_passes_and_adapters_two() -> None:
    lengths = Lengths(((30.0, 1.0),))
    forward = forward_flops(SHAPE, 4 * 30, 4 * 900, 4)
    assert update_flops(SHAPE, 4, lengths) == 3 * forward
    assert 2 * forward < update_flops(SHAPE, 4, lengths, lora_rank=1) < 2.3 * forward


@pytest.mark.parametrize(("steps", "every", "times"), [(96, 1, 97), (96, 4, 25), (10, 4, 4), (1, 8, 2)])
def test_measurements(steps: int, every: int, times: int) -> None:
    assert measurements(steps, every) == times


def test_batches_are_those_of_measuring() -> None:
    assert (LOSS_BATCH_TOKENS, TEXT_BATCH_TOKENS) == (loss.BATCH_TOKENS, generation.BATCH_TOKENS)
    gpu = (GPU_LOSS_BATCH_TOKENS, GPU_TEXT_BATCH_TOKENS)
    assert gpu == (loss.GPU_BATCH_TOKENS, generation.GPU_BATCH_TOKENS)
    chosen = examples(70, 12)
    losses = TargetLosses(chosen, batch_tokens=300)
    sizes = [tuple(batch.input_ids.shape) for batch in losses.batches]
    assert [(rows, longest) for rows, _, longest in lengths_of(chosen).batches(70, 300)] == sizes
    # Each of two pairs stands for four of eight examples.
    assert Lengths(((3.0, 1.0), (5.0, 1.0))).batches(8, 15) == [(4, 3.0, 3.0), (3, 5.0, 5.0), (1, 5.0, 5.0)]


def test_longest_of_draws() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(5, 60, 40)
    lengths = Lengths(tuple((float(each), 1.0) for each in inputs))
    draws = inputs[rng.integers(0, 40, (20000, 4))].max(1)
    assert lengths.longest_of(4) == pytest.approx((draws.mean(), (draws**2).mean()), rel=0.01)
    assert lengths.longest_of(1) == pytest.approx((lengths.fed, lengths.square))


def test_cut_takes_from_prompts() -> None:
    lengths = Lengths(((100.0, 10.0), (5.0, 10.0)))
    assert lengths.cut(50).pairs == ((40.0, 10.0), (5.0, 10.0))
    assert lengths.cut(10).prompt == 1.0


def test_run_scalings() -> None:
    task = get_task("webnlg")
    lengths = task_lengths(task)
    settings = RunSettings("webnlg_410m", 1e-6)
    whole = run_flops(PYTHIA_SHAPES["410m"], settings, lengths)
    assert whole.total == whole.update + whole.loss + whole.generation
    half = run_flops(PYTHIA_SHAPES["410m"], replace(settings, steps=48), lengths)
    assert half.update == pytest.approx(whole.update / 2)
    assert half.loss == pytest.approx(whole.loss * 49 / 97)
    fewer = run_flops(PYTHIA_SHAPES["410m"], replace(settings, test_examples=100), lengths)
    # But for padding.
    assert fewer.loss * 2 == pytest.approx(whole.loss, rel=0.05)
    assert fewer.generation * 2 == pytest.approx(whole.generation, rel=0.1)
    rare = run_flops(PYTHIA_SHAPES["410m"], replace(settings, generate_every=8), lengths)
    assert rare.generation == pytest.approx(whole.generation * 13 / 97) and rare.loss == whole.loss


def test_gradients_cost_three_measurements_an_update() -> None:
    settings = RunSettings("rte_410m", 1e-6, gradients="all")
    lengths = task_lengths(get_task("rte"))
    plain = run_flops(PYTHIA_SHAPES["410m"], settings, lengths)
    followed = run_flops(PYTHIA_SHAPES["410m"], settings, lengths, follows_gradients=True)
    assert plain.gradients == plain.products == plain.generation == 0
    assert followed.gradients == pytest.approx(3 * plain.loss * 96 / 97)
    # Eleven times: at least three passes over pool and test set, which are as long.
    assert followed.products > 11 * 3 * 1.9 * plain.loss / 97


@pytest.mark.parametrize("columns", [16, 64])
def test_a_kernel_takes_what_torch_counts(columns: int, model: PreTrainedModel) -> None:
    pool, tests = examples(120), examples(40)
    with FlopCounterMode(display=False) as counter:
        gradient_kernel(model, pool, tests, columns=columns)
    passes = [len(each) * forward_flops(SHAPE, 24, 24**2, 5) for each in (pool, tests)]
    found = kernel_flops(SHAPE, 120, 40, (24, 24), (passes[0], passes[1]), KernelSettings(columns=columns))
    # torch counts the samples, too, by which coverage and errors are found out.
    assert 0.8 < found / counter.get_total_flops() < 1


def test_a_kernel_passes_the_pool_for_each_part_of_the_test_examples() -> None:
    passes = (1e9, 1e9)
    few = KernelSettings(columns=16, memory=1e-3)
    once, often = (
        kernel_flops(SHAPE, 1000, 1000, (24, 24), passes, each) for each in (KernelSettings(columns=16), few)
    )
    assert often > 10 * once


def test_mixture_counts_each_task() -> None:
    lengths = task_lengths(get_task("flan"))
    assert list(lengths) == ["rte", "sst2", "boolq", "webnlg", "wmt16", "cnn_dm"]
    shape, settings = PYTHIA_SHAPES["14m"], RunSettings("flan_14m", 5e-7, batch_size=8)
    whole = run_flops(shape, settings, lengths)
    each = sum(loss_flops(shape, 200, lengths[name].test.cut(2048)) for name in list(lengths)[:5])
    assert whole.loss == pytest.approx(289 * each)
    # Its inputs are longer by their instructions.
    assert lengths["rte"].pool.prompt > task_lengths(get_task("rte"))["rte"].pool.prompt


def test_recorded_lengths() -> None:
    rte, sst2, webnlg = (task_lengths(get_task(name))[name] for name in ("rte", "sst2", "webnlg"))
    assert rte.pool.target == rte.test.target == 1
    assert rte.pool.fed == pytest.approx(78.9, abs=0.1)
    assert sst2.test.prompt > sst2.pool.prompt
    assert rte.new_tokens == 0 and webnlg.new_tokens == 67
    assert task_lengths(get_task("rte"), "nano")["rte"].pool.prompt > 1.2 * rte.pool.prompt
    assert task_lengths(get_task("rte"), "nano")["rte"].pool.target == 1


def test_tasks_without_a_record() -> None:
    labelled = task_lengths(get_task("mini_sentiment"))["mini_sentiment"]
    generated = task_lengths(get_task("mini_triples"))["mini_triples"]
    assert labelled.new_tokens == 0 and labelled.pool.target == 1 and generated.new_tokens > 0


def test_shapes() -> None:
    assert shape_of(CONFIG) == replace(SHAPE, tied=False)
    assert shape_of(CONFIG.to_dict()) == SHAPE
    nano = base_shape("nano")
    assert (nano.layers, nano.hidden, nano.vocabulary, nano.context, nano.tied) == (4, 128, 6144, 512, True)
    model = GPTNeoXForCausalLM(CONFIG)
    assert SHAPE.weights == pytest.approx(sum(value.numel() for value in model.parameters()), rel=0.03)
    assert PYTHIA_SHAPES["410m"].weights == pytest.approx(405e6, rel=0.01)
    llama = AutoConfig.for_model("llama", hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    assert shape_of(llama).mlp_matrices == 3 and shape_of(llama).key_value_heads == 2
    assert shape_of(AutoConfig.for_model("gpt2")).intermediate == 4 * 768


def test_shape_that_cannot_be_had() -> None:
    with pytest.raises(SettingsError, match="hidden"):
        shape_of({"num_hidden_layers": 2})
    with pytest.raises(SettingsError, match="layers=0"):
        replace(SHAPE, layers=0)


def test_throughput() -> None:
    assert throughput("a100") == PEAKS["a100"] * GPU_UTILISATION
    assert throughput("12.5") == throughput(12.5) == 12.5
    assert 1e-4 < throughput("cpu") < 100
    for wrong in ("b9000", "0", "-1", "nan", "inf"):
        with pytest.raises(SettingsError, match=r"cpu, v100, a100, h100"):
            throughput(wrong)


def test_plan_hours() -> None:
    plan = read_plan("paper")
    hours = plan_hours(plan, 1.0)
    assert [config for config, _ in hours] == [entry.config for entry in plan]
    assert all(spent > 0 for _, spent in hours)
    assert dict(plan_hours(plan, 4.0))["flan_1b"] == pytest.approx(dict(hours)["flan_1b"] / 4)


def test_a_gpu_waits_for_python_between_layers() -> None:
    settings = RunSettings("sst2_410m", 1e-6, steps=48, eval_every=4)
    calls = layer_calls(PYTHIA_SHAPES["410m"], settings, task_lengths(get_task("sst2")))
    # 24 layers: three calls of each in 48 updates, one in each of 13 measurements, whose inputs fit into one batch.
    assert calls == 24 * (3 * 48 + 13)
    plan = Plan("one", (PlanEntry(settings, runs=10),))
    ((_, plain),), ((_, on_gpu),) = plan_hours(plan, 20.0), plan_hours(plan, 20.0, "h100")
    assert on_gpu - plain == pytest.approx(10 * calls * GPU_LAYER_SECONDS / 3600)
    texts = layer_calls(PYTHIA_SHAPES["14m"], RunSettings("webnlg_14m", 1e-6), task_lengths(get_task("webnlg")))
    assert texts > 6 * 97 * 67


def test_plan_hours_count_runs_with_gradients() -> None:
    settings = RunSettings("rte_14m", 1e-6, gradients="test")
    shape, lengths = PYTHIA_SHAPES["14m"], task_lengths(get_task("rte"))
    plain, followed = (run_flops(shape, settings, lengths, each).total for each in (False, True))
    ((_, hours),) = plan_hours(Plan("one", (PlanEntry(settings, runs=32),)), 1.0)
    assert hours == pytest.approx((27 * plain + 5 * followed) / 1e12 / 3600)


def test_plan_hours_count_kernels() -> None:
    settings = RunSettings("rte_14m", 1e-6)
    shape, lengths = PYTHIA_SHAPES["14m"], task_lengths(get_task("rte"))
    entry = PlanEntry(settings, runs=32, kernels=2)
    plain, with_kernel = (run_flops(shape, settings, lengths, kernel=each) for each in (None, entry.kernel))
    assert (plain.products, with_kernel.total - plain.total) == (0, pytest.approx(with_kernel.products))
    ((_, hours),) = plan_hours(Plan("one", (entry,)), 1.0)
    assert hours == pytest.approx((30 * plain.total + 2 * with_kernel.total) / 1e12 / 3600)
    assert kernel_seconds(entry) > 0


def test_generation_takes_longer_than_its_operations() -> None:
    flops = RunFlops(update=1e12, loss=2e12, generation=4e12, gradients=3e12)
    assert flops.total == 10e12
    assert flops.seconds(1e12) == pytest.approx(6 + 4 / GENERATION_SHARE)


def test_estimates_load_no_torch() -> None:
    code = (
        "import sys; from gptdynamics.estimates import plan_hours; from gptdynamics.plans import read_plan;"
        "plan_hours(read_plan('paper'), 1.0); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
