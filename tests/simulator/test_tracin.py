"""TracIn and its relatives against separate backward passes at the weights of a run that is trained again."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder, Dynamics, read_dynamics
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.errors import DataError
from gptdynamics.measurement.loss import example_losses, target_logits
from gptdynamics.models.tokens import TokenizedExample, make_target_batch
from gptdynamics.runs import Bench
from simulator.baselines import NotApplicableError, fit_baseline
from simulator.baselines.published_tracin import separate_products, summed_sides
from simulator.baselines.replay import open_bench, replay
from simulator.experiments.published_products import agreement, output_layer_products
from tests.simulator.conftest import collect_runs

CONFIG, RUN, STEPS, CHECKPOINTS = "mini_sentiment_tiny", "0004", 12, [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """One held-out run of the tiny model with gradients, and one training run without."""
    settings = RunSettings(
        config=CONFIG,
        learning_rate=1e-3,
        pool_size=8,
        subset=8,
        batch_size=2,
        epochs=3,
        test_examples=4,
        base_model=str(tiny_model_folder),
        gradients="test",
    )
    return collect_runs(tmp_path_factory.mktemp("gradients"), settings, 5, ["0000", RUN])


@pytest.fixture(scope="module")
def runs(collected: Path) -> Dynamics:
    return read_dynamics(collected, CONFIG, "loss").split("test")


@dataclass
class Slow:
    """Gradients taken one by one: `[T + 1][examples]` flat, and the weights' change of each update."""

    bench: Bench
    pool: list[list[torch.Tensor]]
    test: list[list[torch.Tensor]]
    changes: list[torch.Tensor]
    states: list[dict[str, torch.Tensor]]


def flat_gradient(model: torch.nn.Module, example: TokenizedExample) -> torch.Tensor:
    ids = torch.tensor([*example.prompt, *example.target])
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[len(example.prompt) - 1 : -1], ids[len(example.prompt) :])
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(model.parameters()))]).double()


@pytest.fixture(scope="module")
def slow(runs: Dynamics) -> Slow:
    bench = open_bench(runs)
    found = Slow(bench, [], [], [], [])
    before = torch.empty(0)
    for model in replay(bench, runs, 0):
        weights = torch.cat([each.detach().flatten() for each in model.parameters()]).double()
        if found.pool:
            found.changes.append(weights - before)
        before = weights
        found.pool.append([flat_gradient(model, each) for each in bench.tokenized.values()])
        found.test.append([flat_gradient(model, each) for each in bench.test_set.tokenized])
        found.states.append(copy.deepcopy(model.state_dict()))
    return found


def slow_trajectory(runs: Dynamics, slow: Slow, where: Callable[[int], int]) -> np.ndarray:
    """loss_t = loss_0 - sum of eta_s times the mean over the batch of products, with gradients at step where(s)."""
    wanted = np.zeros((len(runs.test), STEPS + 1))
    wanted[:, 0] = runs.values[0, :, 0]
    for update, batch in enumerate(runs.curricula[0]):
        at = where(update)
        for test in range(len(runs.test)):
            products = [float(slow.pool[at][i] @ slow.test[at][test]) for i in batch]
            change = runs.learning_rate[0, update] * sum(products) / len(products)
            wanted[test, update + 1] = wanted[test, update] - change
    return wanted


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("tracin_cp_all", lambda update: update),
        ("tracin_cp_10", lambda update: max(at for at in CHECKPOINTS[:-1] if at <= update)),
        ("grad_dot", lambda update: STEPS),
    ],
)
def test_gradient_products_are_those_of_separate_backward_passes(
    runs: Dynamics, slow: Slow, name: str, where: Callable[[int], int]
) -> None:
    found = fit_baseline(name, runs).predict(runs)
    wanted = slow_trajectory(runs, slow, where)
    assert found.shape == runs.values.shape
    assert np.abs(wanted - wanted[:, :1]).max() > 1e-2
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-4)


def test_update_dot_follows_the_weights_own_changes(runs: Dynamics, slow: Slow) -> None:
    found = fit_baseline("update_dot", runs).predict(runs)[0]
    wanted = runs.values[0, :, 0].astype(float)
    for update in range(STEPS):
        wanted = wanted + [float(slow.changes[update] @ gradient) for gradient in slow.test[update]]
        np.testing.assert_allclose(found[:, update + 1], wanted, rtol=1e-4, atol=1e-4)


def test_metrics_measured_now_and_then_are_predicted_where_they_were_measured(runs: Dynamics) -> None:
    every = fit_baseline("tracin_cp_all", runs).predict(runs)
    measured = [2, 5, 12]
    sparse = replace(runs, step=np.array(measured), values=runs.values[..., measured])
    found = fit_baseline("tracin_cp_all", sparse).predict(sparse)
    np.testing.assert_allclose(found, every[..., measured] + (runs.values - every)[..., 2:3], rtol=1e-5)


def test_some_of_the_test_examples_in_another_order_keep_their_own_products(runs: Dynamics) -> None:
    every = fit_baseline("update_dot", runs).predict(runs)
    chosen = [3, 1]
    some = replace(runs, test=[runs.test[at] for at in chosen], values=runs.values[:, chosen])
    np.testing.assert_array_equal(fit_baseline("update_dot", some).predict(some), every[:, chosen])
    there = fit_baseline("tracin_cp_10", runs).predict(runs)
    np.testing.assert_allclose(fit_baseline("tracin_cp_10", some).predict(some), there[:, chosen], rtol=1e-6)


@pytest.mark.parametrize("name", ["tracin_cp_all", "update_dot", "tracin_cp_10", "grad_dot"])
def test_runs_without_gradients_are_refused(collected: Path, name: str) -> None:
    training = read_dynamics(collected, CONFIG, "loss").split("train")
    with pytest.raises(NotApplicableError, match=r"run 0000 .*has no .*; collect with --gradients test"):
        fit_baseline(name, training).predict(training)


@pytest.mark.filterwarnings("ignore:Since `loss_fn` has no:UserWarning")
def test_captum_agrees_with_exact_tracin(runs: Dynamics, slow: Slow) -> None:
    captum = pytest.importorskip("captum.influence")
    bench = slow.bench

    class Losses(torch.nn.Module):
        """Loss of each row of place numbers: pool examples first, then test examples."""

        def __init__(self) -> None:
            super().__init__()
            self.model = copy.deepcopy(bench.base.model)

        def forward(self, places: torch.Tensor) -> torch.Tensor:
            every = [*bench.tokenized.values(), *bench.test_set.tokenized]
            batch = make_target_batch(every, places.flatten().tolist())
            return example_losses(target_logits(self.model, batch), batch)

    rates = runs.learning_rate[0]

    def load(model: Losses, checkpoint: int) -> float:
        model.model.load_state_dict(slow.states[checkpoint])
        return float(rates[checkpoint])

    count = len(bench.pool)
    pool = torch.utils.data.TensorDataset(torch.arange(count)[:, None], torch.zeros(count))
    test = torch.arange(count, count + len(bench.test))[:, None]
    wanted = runs.values[0, :, 0].astype(float)
    for update, batch in enumerate(runs.curricula[0]):
        tracin = captum.TracInCP(
            Losses(), pool, [update], load, loss_fn=lambda losses, labels: losses, batch_size=count
        )
        influence = tracin.influence((test, torch.zeros(len(test)))).double().numpy()
        wanted = wanted - influence[:, batch].mean(1)
    np.testing.assert_allclose(
        fit_baseline("tracin_cp_all", runs).predict(runs)[0, :, -1], wanted, rtol=1e-4, atol=1e-4
    )


def test_the_published_sides_are_sums_over_tokens(slow: Slow) -> None:
    model = slow.bench.base.model
    activations, gradients, losses = summed_sides(model, slow.bench.test_set.tokenized)
    for at, example in enumerate(slow.bench.test_set.tokenized):
        ids = torch.tensor([*example.prompt, *example.target])
        hidden = model.base_model(input_ids=ids[None]).last_hidden_state[0, :-1].detach()
        logits = model.get_output_embeddings()(hidden).detach().requires_grad_()
        targets = slice(len(example.prompt) - 1, None)
        loss = torch.nn.functional.cross_entropy(logits[targets], ids[len(example.prompt) :])
        loss.backward()
        assert float(losses[at]) == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(activations[at], hidden.sum(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gradients[at], logits.grad.sum(0), rtol=1e-4, atol=1e-5)


def output_gradient(model: torch.nn.Module, example: TokenizedExample) -> torch.Tensor:
    """The gradient of the output layer, from the full logits of the whole sequence."""
    ids = torch.tensor([*example.prompt, *example.target])
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[len(example.prompt) - 1 : -1], ids[len(example.prompt) :])
    return torch.autograd.grad(loss, model.get_output_embeddings().weight)[0].flatten()


def test_published_products_are_exact_for_a_single_token_only(slow: Slow) -> None:
    model = slow.bench.base.model
    single = [TokenizedExample.from_parts([first], [second]) for first, second in ((5, 7), (9, 7), (5, 11))]
    sides = summed_sides(model, single)[:2]
    exact = output_layer_products(model, single, single)
    np.testing.assert_allclose(separate_products(sides, sides).numpy(), exact, rtol=1e-4)
    pool, test = list(slow.bench.tokenized.values())[:4], slow.bench.test_set.tokenized
    published = separate_products(summed_sides(model, pool)[:2], summed_sides(model, test)[:2]).numpy()
    layer = output_layer_products(model, pool, test)
    slow_layer = [
        [float(output_gradient(model, one) @ output_gradient(model, other)) for other in test] for one in pool
    ]
    np.testing.assert_allclose(layer, slow_layer, rtol=1e-3, atol=1e-4)
    assert agreement(published, layer)["size"] > 2
    assert agreement(layer, layer) == pytest.approx({"size": 1, "correlation": 1, "same_sign": 1})


def test_published_tracin_adds_up_its_own_products(runs: Dynamics, slow: Slow) -> None:
    found = fit_baseline("tracin_cp_published", runs).predict(runs)[0]
    wanted = runs.values[0, :, 0].astype(float)
    model = copy.deepcopy(slow.bench.base.model)
    for update, batch in enumerate(runs.curricula[0]):
        model.load_state_dict(slow.states[update])
        test = summed_sides(model, slow.bench.test_set.tokenized)
        pool = summed_sides(model, list(slow.bench.tokenized.values()))
        products = separate_products(pool[:2], test[:2]).numpy()
        wanted = wanted - runs.learning_rate[0, update] * products[batch].mean(0)
        np.testing.assert_allclose(found[:, update + 1], wanted, rtol=1e-3, atol=1e-3)
    exact = fit_baseline("tracin_cp_all", runs).predict(runs)[0]
    assert np.abs(found[:, -1] - exact[:, -1]).mean() > np.abs(exact[:, -1] - exact[:, 0]).mean()


def test_published_tracin_refuses_runs_that_come_out_differently(runs: Dynamics) -> None:
    other = replace(runs, values=runs.values + 0.1)
    with pytest.raises(NotApplicableError, match="trained again, has other losses after 0 updates"):
        fit_baseline("tracin_cp_published", other).predict(other)


def test_published_tracin_needs_texts_weights_and_a_manifest(runs: Dynamics, tmp_path: Path) -> None:
    def predict(changed: Dynamics) -> np.ndarray:
        return fit_baseline("tracin_cp_published", changed).predict(changed)

    with pytest.raises(NotApplicableError, match=r"example \d+ has no text"):
        predict(replace(runs, pool=[replace(each, prompt="", target="") for each in runs.pool]))
    with pytest.raises(NotApplicableError, match=r"started from .* 123, but here that is"):
        predict(replace(runs, base_revision="123"))
    with pytest.raises(NotApplicableError, match="has no manifest"):
        predict(replace(runs, source=str(tmp_path)))


def test_damaged_columns_are_reported_as_damage(collected: Path, runs: Dynamics, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(collected, root)
    path = DatasetFolder(root).run_path(CONFIG, RUN)
    table = read_parquet(path)
    rows = [row | {"grad_dot": [float("nan")] * STEPS} for row in table.to_pylist()]
    write_parquet(pa.Table.from_pylist(rows, schema=table.schema), path)
    damaged = replace(runs, source=str(root))
    with pytest.raises(DataError, match="its grad_dot is damaged") as raised:
        fit_baseline("tracin_cp_all", damaged).predict(damaged)
    assert not isinstance(raised.value, NotApplicableError)
