"""Experiments that train collected runs again: the noise floor, the cost of pairs, the published products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.configs import RunSettings, run_name
from simulator.baselines.replay import open_bench
from simulator.experiments import Workbench, run_experiment
from simulator.experiments.cost import EXACT_PAIRS, PUBLISHED
from simulator.experiments.noise_floor import is_stochastic, measured_again
from tests.simulator.conftest import collect_runs

pytestmark = pytest.mark.usefixtures("quick_markov")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short runs on a generation task, really trained."""
    settings = RunSettings(
        config="mini_triples_nano",
        learning_rate=1e-3,
        pool_size=8,
        subset=8,
        batch_size=2,
        epochs=1,
        test_examples=3,
        generate_every=4,
        gradients="test",
    )
    return collect_runs(tmp_path_factory.mktemp("collected"), settings, 6, [run_name(index) for index in range(6)])


def test_the_noise_floor_is_half_of_what_two_samplings_differ_by(collected: Path, tmp_path: Path) -> None:
    bench = Workbench(str(collected))
    result = run_experiment("noise-floor", bench, tmp_path).result
    assert [row["metric"] for row in result.rows] == ["bleu", "rougeL"]
    assert all(row["floor"] == pytest.approx(row["between"] / 2) for row in result.rows)
    assert result.skipped == ["mini_triples_nano, loss: no noise, training without dropout is fixed by its curriculum"]
    replayed = open_bench(bench.runs("mini_triples_nano").split("test"))
    runs = {metric: bench.runs("mini_triples_nano", metric).split("test") for metric in ("loss", "bleu")}
    # With no random number in it, a metric comes out as it was recorded.
    steps, values = measured_again(replayed, runs, ["loss"], 1)["loss"]
    np.testing.assert_allclose(values, runs["loss"].values[0][:, steps], rtol=1e-4)


def test_adapters_make_training_itself_stochastic(collected: Path) -> None:
    replayed = open_bench(Workbench(str(collected)).runs("mini_triples_nano").split("test"))
    assert not is_stochastic(replayed)
    replayed.settings = replace(replayed.settings, lora_rank=8)
    assert is_stochastic(replayed)


@pytest.mark.slow
def test_cost_of_exact_products_and_of_pairs(collected: Path, tmp_path: Path) -> None:
    result = run_experiment("cost", Workbench(str(collected)), tmp_path).result
    rows = {row["method"]: row for row in result.rows}
    assert {"tracin_cp_all", "tracin_cp_10", EXACT_PAIRS, PUBLISHED} <= rows.keys()
    assert rows[PUBLISHED]["of_published"] == 1
    assert rows["tracin_cp_all"]["seconds"] < rows[EXACT_PAIRS]["seconds"]
    assert all(rows[name]["operations"] > 1e5 for name in ("tracin_cp_all", "tracin_cp_10", EXACT_PAIRS, PUBLISHED))


def test_published_products_are_compared_where_exact_ones_were_recorded(
    collected: Path, dataset: Path, tmp_path: Path
) -> None:
    rows = run_experiment("published-tracin", Workbench(str(collected)), tmp_path).result.rows
    assert len(rows) == 3
    # The output layer alone is close to all parameters; what the published code makes of it is not.
    assert rows[2]["correlation"] > rows[0]["correlation"]
    bench = Workbench(str(dataset), ("mini_sentiment_nano",))
    assert run_experiment("published-tracin", bench, tmp_path).result.skipped == [
        "mini_sentiment_nano: no gradient products; collect with --gradients test"
    ]
