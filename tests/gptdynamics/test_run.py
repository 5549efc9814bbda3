from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import Curriculum
from gptdynamics.errors import DivergedRunError
from gptdynamics.measurement import score_texts
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs import Bench, Run, train_run

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(make_settings: Callable[..., RunSettings], rows_folder: Path) -> MakeBench:
    """Pool, test set and tiny model of some settings."""
    return lambda config="rte_tiny", **changes: Bench.load(make_settings(config, **changes), rows_folder)


def run_of(bench: Bench, name: str = "0000", on_step: Callable[[int], None] = lambda step: None) -> Run:
    return train_run(bench.base, bench.tokenized, bench.test_set, bench.settings, name, on_step)


def slow_loss(model: torch.nn.Module, example: TokenizedExample) -> torch.Tensor:
    """Mean cross-entropy of one example, from the full logits of its whole sequence."""
    ids = torch.tensor([*example.prompt, *example.target])
    logits = model(input_ids=ids[None]).logits[0]
    return torch.nn.functional.cross_entropy(logits[len(example.prompt) - 1 : -1], ids[len(example.prompt) :])


def slow_run(
    base: BaseModel,
    pool: dict[int, TokenizedExample],
    test: list[TokenizedExample],
    curriculum: Curriculum,
    settings: RunSettings,
) -> np.ndarray:
    """Test losses before and after each update: AdamW spelled out, one example at a time."""
    model = copy.deepcopy(base.model)
    weights = list(model.parameters())
    first = [torch.zeros_like(weight) for weight in weights]
    second = [torch.zeros_like(weight) for weight in weights]
    beta1, beta2 = settings.beta1, settings.beta2

    def measure() -> list[float]:
        with torch.no_grad():
            return [slow_loss(model, example).item() for example in test]

    measured = [measure()]
    for done, batch in enumerate(curriculum, start=1):
        rate = settings.learning_rate * (1 - (done - 1) / len(curriculum))
        loss = torch.stack([slow_loss(model, pool[at]) for at in batch]).mean()
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for at, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                first[at] = beta1 * first[at] + (1 - beta1) * gradient
                second[at] = beta2 * second[at] + (1 - beta2) * gradient**2
                step = first[at] / (1 - beta1**done)
                scale = (second[at] / (1 - beta2**done)).sqrt() + settings.epsilon
                weight -= rate * settings.weight_decay * weight + rate * step / scale
        measured.append(measure())
    return np.stack(measured, axis=-1)


@pytest.mark.parametrize("config", ["rte_tiny", "webnlg_tiny"])
def test_losses_equal_those_of_a_loop_with_adamw_spelled_out(make_bench: MakeBench, config: str) -> None:
    bench = make_bench(config, batch_size=4, subset=12, steps=3, weight_decay=0.1, learning_rate=3e-3)
    run = run_of(bench, name="0001")
    slow = slow_run(bench.base, bench.tokenized, bench.test_set.tokenized, run.curriculum, bench.settings)
    assert run.step == [0, 1, 2, 3]
    assert np.abs(slow[:, -1] - slow[:, 0]).max() > 0.05  # the updates do something
    np.testing.assert_allclose(run.metrics["loss"], slow, rtol=0, atol=1e-5)


def test_same_settings_give_identical_arrays_and_another_index_others(make_bench: MakeBench) -> None:
    bench = make_bench("webnlg_tiny")
    first, again, other = run_of(bench), run_of(make_bench("webnlg_tiny")), run_of(bench, name="0001")
    assert list(first.metrics) == ["loss", "bleu", "rougeL"]
    for name, values in first.metrics.items():
        np.testing.assert_array_equal(values, again.metrics[name])
    assert first.curriculum == again.curriculum != other.curriculum
    np.testing.assert_array_equal(first.metrics["loss"][:, 0], other.metrics["loss"][:, 0])
    assert (first.metrics["loss"][:, -1] != other.metrics["loss"][:, -1]).any()


def test_the_base_model_is_not_changed(make_bench: MakeBench) -> None:
    bench = make_bench()
    before = {name: tensor.clone() for name, tensor in bench.base.model.state_dict().items()}
    run_of(bench)
    for name, tensor in bench.base.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_run_says_its_curriculum_and_the_rate_of_each_update(make_bench: MakeBench) -> None:
    bench = make_bench(epochs=2, learning_rate=0.004)
    run = run_of(bench, name="0005")
    assert run.name == "0005"
    assert [len(batch) for batch in run.curriculum] == [4] * 4
    assert {at for batch in run.curriculum for at in batch} <= bench.tokenized.keys()
    assert run.learning_rate == pytest.approx([0.004, 0.003, 0.002, 0.001])
    assert {name: values.shape for name, values in run.metrics.items()} == {"loss": (5, 5), "accuracy": (5, 5)}
    assert {values.dtype for values in run.metrics.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_a_huge_learning_rate_diverges_with_a_reason(make_bench: MakeBench, rate: float) -> None:
    with pytest.raises(DivergedRunError, match=r"is not finite (at update|after) \d+"):
        run_of(make_bench(learning_rate=rate, epochs=3))


@pytest.mark.parametrize(
    ("eval_every", "generate_every", "steps", "loss_steps", "text_steps"),
    [
        (1, 1, 3, [0, 1, 2, 3], [0, 1, 2, 3]),
        (2, 4, 5, [0, 2, 4, 5], [0, 4, 5]),
        (3, 6, 5, [0, 3, 5], [0, 5]),
        (2, 2, 4, [0, 2, 4], [0, 2, 4]),
        (100, 100, 2, [0, 2], [0, 2]),
    ],
)
def test_measured_steps_start_at_zero_and_always_end_with_the_last(
    make_bench: MakeBench,
    eval_every: int,
    generate_every: int,
    steps: int,
    loss_steps: list[int],
    text_steps: list[int],
) -> None:
    bench = make_bench(
        "webnlg_tiny", eval_every=eval_every, generate_every=generate_every, epochs=3, steps=steps, test_examples=2
    )
    run = run_of(bench)
    assert (run.step, run.generation_step) == (loss_steps, text_steps)
    lengths = {name: values.shape[1] for name, values in run.metrics.items()}
    assert lengths == {"loss": len(loss_steps), "bleu": len(text_steps), "rougeL": len(text_steps)}


def test_measuring_less_often_changes_no_number(make_bench: MakeBench) -> None:
    often = run_of(make_bench("webnlg_tiny", epochs=2))
    seldom = run_of(make_bench("webnlg_tiny", epochs=2, eval_every=2, generate_every=4))
    np.testing.assert_array_equal(seldom.metrics["loss"], often.metrics["loss"][:, [0, 2, 4]])
    np.testing.assert_array_equal(seldom.metrics["rougeL"], often.metrics["rougeL"][:, [0, 4]])


def test_text_is_seeded_by_run_step_and_example(make_bench: MakeBench) -> None:
    # A rate this small changes no weight, so only the seeds differ from step to step.
    bench = make_bench("webnlg_tiny", temperature=2.0, seed=11, learning_rate=1e-30)
    run = run_of(bench, name="0003")
    generator = bench.test_set.generator
    assert generator is not None
    expected = []
    for done in run.generation_step:
        texts = generator.sample(bench.base.model, [[11, 3, done, example.id] for example in bench.test])
        expected.append(score_texts(texts, [example.references for example in bench.test])["rougeL"])
    np.testing.assert_array_equal(run.metrics["rougeL"], np.stack(expected, axis=-1))
    assert len({tuple(row) for row in expected}) > 1


def test_progress_is_told_after_every_update(make_bench: MakeBench) -> None:
    told: list[int] = []
    run_of(make_bench(eval_every=2, generate_every=2), on_step=told.append)
    assert told == [0, 1, 2]


def test_timing_counts_the_measurements(make_bench: MakeBench) -> None:
    timing = run_of(make_bench("webnlg_tiny", eval_every=2, generate_every=2)).timing
    assert timing.evaluations == 2
    assert min(timing.update, timing.loss, timing.generation, timing.forward) > 0
    assert timing.forward_passes == pytest.approx(timing.loss / 2 / timing.forward)
