"""Exact first-order effects against retrainings with slightly other weights, by a loop that is written out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs import Bench, BenchContents
from gptdynamics.tasks import get_task, load_examples
from simulator.attribution.exact_first_order import exact_first_order

# Row 3 is twice in one batch and alone in another, row 5 alone in a batch of its own and in one of two, 7 never seen.
CURRICULUM = [[0, 1, 3, 3], [2, 5], [], [3], [4, 0, 1], [5, 5], [2, 3]]
RATES = [2e-3, 2e-3, 1.5e-3, 1e-3, 1e-3, 8e-4, 5e-4]
MEASURED = [0, 1, 2, 3, 4, 6, 7]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A tiny model in double precision, as differences of retrainings need it."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from gptdynamics.models.base_model import load_base_model

    settings = RunSettings("mini_sentiment_nano", 2e-3, pool_size=8, subset=8, test_examples=4, weight_decay=0.1)
    nano = load_base_model("nano")
    torch.manual_seed(0)
    shape = GPTNeoXConfig(
        vocab_size=nano.vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    base = replace(nano, model=GPTNeoXForCausalLM(shape).double().eval())
    task = get_task("mini_sentiment")
    pool, test = load_examples(task, "pool", 8), load_examples(task, "test", 4)
    return Bench(BenchContents(settings, tuple(pool), tuple(test)), base=base)


def loss_of(model: torch.nn.Module, example: TokenizedExample) -> torch.Tensor:
    ids = torch.tensor(example.ids)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, example.prompt_length - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, ids[example.prompt_length :])


def retrained(bench: Bench, weights: Mapping[int, float], gone: tuple[int, ...] = ()) -> np.ndarray:
    """Test losses `[M, S]` of the run with these weights of rows, and without some: one example at a time."""
    settings, model = bench.settings, copy.deepcopy(bench.base.model)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )
    measured = []
    for done in range(len(CURRICULUM) + 1):
        if done in MEASURED:
            with torch.no_grad():
                measured.append([float(loss_of(model, example)) for example in bench.test_set.tokenized])
        if done == len(CURRICULUM):
            break
        batch = [key for key in CURRICULUM[done] if key not in gone]
        if not batch:
            continue
        shares = [weights.get(key, 1.0) for key in batch]
        losses = [share * loss_of(model, bench.tokenized[key]) for share, key in zip(shares, batch, strict=True)]
        (sum(losses) / sum(shares)).backward()
        optimizer.param_groups[0]["lr"] = RATES[done]
        optimizer.step()
        optimizer.zero_grad()
    return np.array(measured).T


def test_effects_are_the_differences_of_retrainings(bench: Bench) -> None:
    phases: list[tuple[str, int]] = []
    ticks: list[None] = []
    # So little memory that there is a pass for each row.
    found = exact_first_order(
        bench,
        "0000",
        CURRICULUM,
        RATES,
        MEASURED,
        memory=1e-9,
        on_phase=lambda name, total: phases.append((name, total)),
        on_progress=lambda: ticks.append(None),
    )
    assert found.pool_ids == (0, 1, 2, 3, 4, 5)
    assert phases == [("exact first-order effects of 6 rows", 42)] and len(ticks) == 42
    np.testing.assert_allclose(found.losses, retrained(bench, {}), rtol=1e-5)
    small = 1e-5
    for place, row in enumerate(found.pool_ids):
        wanted = (retrained(bench, {row: 1 + small}) - retrained(bench, {row: 1 - small})) / (2 * small)
        size = np.abs(wanted).max()
        assert size > 1e-4
        np.testing.assert_allclose(found.derivatives[place], wanted, rtol=2e-3, atol=2e-3 * size)


def test_rows_together_have_the_effects_that_they_have_alone(bench: Bench) -> None:
    alone = exact_first_order(bench, "0000", CURRICULUM, RATES, [4, 7], rows=[3, 7], memory=1e-9)
    together = exact_first_order(bench, "0000", CURRICULUM, RATES, [4, 7])
    np.testing.assert_allclose(alone.derivatives[0], together.derivatives[3], rtol=1e-4, atol=1e-7)
    # A row that is never visited has no effect.
    assert not alone.derivatives[1].any()


def test_a_batch_of_one_row_adds_nothing(bench: Bench) -> None:
    found = exact_first_order(bench, "0000", [[5], [5, 5]], RATES[:2], [1, 2])
    size = np.abs(exact_first_order(bench, "0000", [[5, 1]], RATES[:1], [1]).derivatives).max()
    np.testing.assert_allclose(found.derivatives, 0, atol=1e-5 * size)


def test_rows_left_out_change_the_run_by_the_sum_of_their_effects(bench: Bench) -> None:
    found = exact_first_order(bench, "0000", CURRICULUM, RATES, MEASURED)
    predicted = found.without([(), (1,), (1, 4)])
    assert predicted.shape == (3, 4, len(MEASURED))
    np.testing.assert_array_equal(predicted[0], found.losses)
    for run, rows in ((1, (1,)), (2, (1, 4))):
        for test in range(4):
            for step in range(len(MEASURED)):
                wanted = found.losses[test, step] - sum(found.derivatives[row, test, step] for row in rows)
                assert predicted[run, test, step] == pytest.approx(wanted, rel=1e-5)
    # Real runs without them go the same way.
    changed = retrained(bench, {}, gone=(1, 4)) - found.losses
    assert np.corrcoef((predicted[2] - found.losses)[:, 1:].ravel(), changed[:, 1:].ravel())[0, 1] > 0.8
    with pytest.raises(SettingsError, match="run 0000: no effects of pool row 7 were computed"):
        found.without([(7,)])


def test_what_cannot_be_differentiated_is_refused(bench: Bench) -> None:
    with pytest.raises(SettingsError, match="row 99 is not in the pool"):
        exact_first_order(bench, "0000", CURRICULUM, RATES, [7], rows=[99])
    model = copy.deepcopy(bench.base.model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    dropping = copy.copy(bench)
    dropping.base = replace(bench.base, model=model)
    with pytest.raises(SettingsError, match="need runs in fp32 without dropout"):
        exact_first_order(dropping, "0000", CURRICULUM, RATES, [7], rows=[0])
