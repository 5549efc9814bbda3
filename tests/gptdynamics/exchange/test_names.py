"""What names in the authors' layout say, and names that say it again."""

from __future__ import annotations

import random
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.configs import RunSettings, run_name
from gptdynamics.errors import DataError
from gptdynamics.exchange.names import (
    RunFolder,
    checked_path,
    config_names,
    example_file,
    parse_run_folder,
    run_folder_name,
    short_number,
)

RTE = "output_rte_bs-4_shot-200_sample-128_model-pythia-410m-deduped_lr-5e-7_weight-decay-0.001_epoch-3_seed-{}"


def parsed(name: str) -> RunFolder:
    return parse_run_folder(PurePosixPath("runs/group") / name)


def test_every_part_of_a_name_is_read() -> None:
    found = parsed(RTE.format(1))
    assert found == RunFolder(
        path=f"runs/group/{RTE.format(1)}",
        task="rte",
        model="pythia-410m-deduped",
        seed=1,
        learning_rate=5e-7,
        batch_size=4,
        shot=200,
        sample=128,
        weight_decay=0.001,
        epochs=3,
        tags="",
    )
    assert (found.size, found.base_model) == ("410m", "410m")
    assert list(config_names([found])) == ["rte_410m"]


def test_their_name_of_a_task_a_model_of_another_name_and_other_words_are_understood() -> None:
    found = parsed("output_wmt16_de_en_bs-4_model-pythia-14m_lr-1e-6_epoch-3_loss-output-token_seed-12")
    assert (found.task, found.size, found.base_model, found.tags) == ("wmt16", "14m", "pythia-14m", "loss-output-token")
    assert (found.shot, found.sample, found.weight_decay) == (None, None, None)
    unnamed = parsed("output_mini_triples_bs-4_lr-2e-6_seed-1")
    assert (unnamed.task, unnamed.size, unnamed.base_model) == ("mini_triples", "unknown", "unknown")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rte_bs-4_lr-5e-7_seed-1", "not named output_"),
        ("output_rte_bs-4_seed-1", "no lr"),
        ("output_rte_bs-4_lr-5e-7", "no seed"),
        ("output_rte_bs-four_lr-5e-7_seed-1", "bs-four"),
        ("output_rte_bs-4_lr-nan_seed-1", "lr-nan"),
        ("output_rte_bs-4_lr-0_seed-1", "lr-0"),
        ("output_rte_bs-4_lr-5e-7_seed-1.5", "seed-1.5"),
        ("output_rte_bs-4_lr-5e-7_seed--1", "seed--1"),
        ("output_rte_bs-4_bs-8_lr-5e-7_seed-1", "bs twice"),
        ("output_rte_lr-5e-7_seed-1\nevil", "not named"),
        ("output_r te_lr-5e-7_seed-1", "not named"),
    ],
)
def test_a_name_that_is_none_says_why(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        parsed(name)


def test_runs_are_in_the_order_of_their_seeds_however_they_are_listed() -> None:
    folders = [parsed(RTE.format(seed)) for seed in (2, 10, 1, 33, 9)]
    for _ in range(5):
        random.Random(0).shuffle(folders)
        assert [each.seed for each in config_names(folders)["rte_410m"]] == [1, 2, 9, 10, 33]


def test_runs_of_other_hyper_parameters_are_another_config() -> None:
    folders = [parsed(RTE.format(seed)) for seed in range(3)]
    folders += [parsed(RTE.format(seed).replace("lr-5e-7", "lr-2e-6")) for seed in range(2)]
    folders += [parsed(RTE.format(7).replace("_seed", "_loss-last-token_seed"))]
    folders += [parsed(RTE.format(7).replace("410m-deduped", "410m").replace("epoch-3", "epoch-2"))]
    named = config_names(folders)
    assert {name: len(runs) for name, runs in named.items()} == {
        "rte_410m": 3,
        "rte_410m-lr-2e-6": 2,
        "rte_410m-loss-last-token": 1,
        "rte_410m-model-pythia-410m-epochs-2": 1,
    }


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("rte_0_399_train.json", ("rte", "pool")),
        ("rte_0_276_eval.json", ("rte", "test")),
        ("boolq_validation_0-199.json", ("boolq", "test")),
        ("wmt16_de_en_test_0-199.json", ("wmt16", "test")),
        ("webnlg_dev_0-177.jsonl", ("webnlg", "test")),
        ("flan_train_0_1599.json", ("flan", "pool")),
        ("flan.json", None),
        ("train.json", None),
        ("rte_0_399_train.txt", None),
    ],
)
def test_a_file_of_examples_is_known_by_its_name(name: str, found: tuple[str, str] | None) -> None:
    assert example_file(name) == found


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_short_number_is_the_same_number(value: float) -> None:
    text = short_number(value)
    assert float(text) == value
    assert "_" not in text and "+" not in text


def test_short_numbers_look_like_theirs() -> None:
    assert [short_number(value) for value in (5e-7, 1e-6, 0.001, 2.0)] == ["5e-7", "1e-6", "0.001", "2"]


@given(
    config=st.sampled_from(["rte_410m", "wmt16_14m", "mini_triples_nano", "flan_2.8b"]),
    rate=st.floats(min_value=1e-9, max_value=1.0),
    index=st.integers(0, 500),
    unseen=st.booleans(),
)
def test_the_name_made_of_settings_says_them_again(config: str, rate: float, index: int, unseen: bool) -> None:
    settings = RunSettings(config=config, learning_rate=rate, batch_size=2, epochs=5, pool_size=60, subset=40)
    found = parsed(run_folder_name(settings, run_name(index, unseen), settings.base))
    assert (found.task, found.learning_rate, found.seed) == (settings.task, rate, index)
    assert (found.batch_size, found.epochs, found.shot, found.sample) == (2, 5, 60, 40)
    assert (found.size, found.base_model) == (settings.base, settings.base)
    assert found.tags == ("unseen-rows" if unseen else "")


def test_a_base_model_of_a_folder_or_the_hub_is_its_last_part() -> None:
    settings = RunSettings(config="rte_own", learning_rate=1e-4, base_model="/models/my model/")
    assert "_model-my-model_" in run_folder_name(settings, "0000", settings.base)
    assert "_model-gpt2_" in run_folder_name(settings, "0000", "openai-community/gpt2")


EVIL = ("../evil", "runs/../../evil", "/runs/x", "runs", "runs/rte/", "runs//x", "runs/.x", "runs/a\nb", "sft_tasks/x")


@pytest.mark.parametrize("text", [*EVIL, "runs/a\\..\\b x", None, 3, ["runs/x"]])
def test_a_path_that_a_dataset_names_stays_inside_the_release(text: object) -> None:
    with pytest.raises(DataError, match="not a path inside runs/"):
        checked_path(text, "runs")
    assert checked_path(f"runs/rte/{RTE.format(1)}", "runs").name == RTE.format(1)
