from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.configs import RunSettings, config_parts, default_learning_rate, run_name, split_of
from gptdynamics.errors import SettingsError


@given(st.integers(min_value=0, max_value=10_000))
def test_any_32_runs_in_a_block_split_25_2_5(block: int) -> None:
    splits = Counter(split_of(32 * block + at) for at in range(32))
    assert splits == {"train": 25, "validation": 2, "test": 5}


def test_splits_are_those_of_the_data_model() -> None:
    assert [at for at in range(64) if split_of(at) == "test"] == [4, 10, 16, 22, 28, 36, 42, 48, 54, 60]
    assert [at for at in range(64) if split_of(at) == "validation"] == [3, 19, 35, 51]


def test_six_runs_have_one_of_each_split() -> None:
    assert {split_of(at) for at in range(6)} == {"train", "validation", "test"}


def test_run_names_sort_like_their_numbers() -> None:
    assert [run_name(at) for at in (0, 7, 31, 12345)] == ["0000", "0007", "0031", "12345"]


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("rte_nano", ("rte", "nano")),
        ("mini_sentiment_nano", ("mini_sentiment", "nano")),
        ("flan_2.8b", ("flan", "2.8b")),
    ],
)
def test_config_splits_at_its_last_underscore(config: str, parts: tuple[str, str]) -> None:
    assert config_parts(config) == parts


@pytest.mark.parametrize("config", ["rte", "rte_", "_nano", "", "../rte_nano", "rte/x_nano", "r te_nano", "rte_nano\n"])
def test_other_forms_of_config_are_refused(config: str) -> None:
    with pytest.raises(SettingsError, match="not of the form <task>_<size>"):
        config_parts(config)


def test_learning_rate_of_an_unlisted_config_must_be_given() -> None:
    assert default_learning_rate("rte_410m") == 5e-7
    with pytest.raises(SettingsError, match=r"rte_14m: give --learning-rate"):
        default_learning_rate("rte_14m")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"test_examples": -1}, "test_examples=-1 must be at least 1"),
        ({"eval_every": 0}, "eval_every=0 must be at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, r"learning_rate=nan must be above 0"),
        ({"subset": 300}, "subset=300 is larger than pool_size=200"),
        ({"batch_size": 129}, "batch_size=129 is larger than subset=128"),
        ({"steps": 97}, "steps=97 must be between 1 and the 96"),
        ({"steps": 0}, "steps=0 must be between 1"),
        ({"learning_rate": float("inf")}, "learning_rate=inf must be above 0 and finite"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_p": 1.5}, "top_p in"),
        ({"config": "rte"}, "not of the form"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RunSettings(**({"config": "rte_nano", "learning_rate": 1e-3} | wrong))


def test_steps_are_those_of_the_epochs_unless_cut() -> None:
    assert RunSettings("rte_nano", 1e-3).run_steps == 96
    assert RunSettings("rte_nano", 1e-3, steps=5).run_steps == 5
    assert RunSettings("rte_nano", 1e-3, subset=10, batch_size=4, epochs=2).run_steps == 4


def test_base_is_the_size_unless_another_model_is_given() -> None:
    assert RunSettings("mini_triples_nano", 1e-3).base == "nano"
    assert RunSettings("rte_mine", 1e-3, base_model="org/model").base == "org/model"


def test_differences_name_each_setting_with_both_values() -> None:
    now = RunSettings("rte_nano", 1e-3, seed=1)
    there = RunSettings("rte_nano", 2e-3).to_dict()
    assert now.differences(there) == [
        "learning_rate: 0.002 there, 0.001 now",
        "seed: 0 there, 1 now",
    ]
    assert now.differences(now.to_dict()) == []
    assert now.differences(now.to_dict() | {"gone": 1}) == ["gone: 1 there, None now"]
