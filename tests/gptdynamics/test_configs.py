from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.configs import (
    SPLITS,
    RunParts,
    RunSettings,
    config_parts,
    counterfactual_name,
    run_name,
    run_parts,
    split_of,
)
from gptdynamics.errors import SettingsError


@given(st.integers(min_value=0, max_value=10_000))
def test_any_32_runs_in_a_block_split_25_2_5(block: int) -> None:
    splits = Counter(split_of(run_name(32 * block + at)) for at in range(32))
    assert splits == {"train": 25, "validation": 2, "test": 5}


def test_splits_are_those_of_the_data_model() -> None:
    assert [at for at in range(64) if split_of(run_name(at)) == "test"] == [4, 10, 16, 22, 28, 36, 42, 48, 54, 60]
    assert [at for at in range(64) if split_of(run_name(at)) == "validation"] == [3, 19, 35, 51]


def test_six_runs_have_one_of_each_split() -> None:
    assert {split_of(run_name(at)) for at in range(6)} == {"train", "validation", "test"}


def test_run_names_sort_like_their_numbers() -> None:
    assert [run_name(at) for at in (0, 7, 31, 12345)] == ["0000", "0007", "0031", "12345"]


@given(st.integers(0, 10**6), st.booleans())
def test_the_name_of_a_run_says_its_number_and_whether_its_rows_are_unseen(index: int, unseen: bool) -> None:
    assert run_parts(run_name(index, unseen)) == RunParts(index, unseen)
    assert split_of(run_name(index, unseen)) in SPLITS
    assert (split_of(run_name(index, unseen)) == "test_unseen") is unseen


def test_runs_on_unseen_rows_have_names_of_their_own() -> None:
    assert [run_name(at, unseen=True) for at in (0, 7, 12345)] == ["u0000", "u0007", "u12345"]
    assert not {run_name(at) for at in range(40)} & {run_name(at, unseen=True) for at in range(40)}


@pytest.mark.parametrize(
    "run",
    [
        *("", "7", "007", "00007", "012345", "-001", "+001", " 0007", "0007 ", "0007\n", "x0007", "U0007", "uu0007"),
        *("u", "u7", "0x07", "0007.parquet", "../0007", "0007/..", "/0007", "..", "u../0007", "0007\0", "1e03", "0_07"),
        "\u0660\u0660\u0660\u0667",  # Arabic digits
    ],
)
def test_other_names_of_runs_are_refused(run: str) -> None:
    for use in (run_parts, split_of):
        with pytest.raises(SettingsError, match="is not the name of a run, such as 0007 or u0007"):
            use(run)


@given(st.text("uc01279 ./-+_", max_size=12))
def test_any_text_is_either_the_name_that_its_run_would_be_given_or_refused(text: str) -> None:
    try:
        parts = run_parts(text)
    except SettingsError:
        return
    named = counterfactual_name(parts.base, parts.index) if parts.base else run_name(parts.index, parts.unseen)
    assert named == text


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


@pytest.mark.parametrize("size", ["examples", "runs", "gradients", "Runs"])
@pytest.mark.parametrize("task", ["rte", "mini_sentiment"])
def test_a_config_may_not_be_named_like_other_files_of_a_dataset(task: str, size: str) -> None:
    for use in (config_parts, lambda config: RunSettings(config, 1e-3)):
        with pytest.raises(SettingsError, match=f"may not end in _{size}.*{task}_{size}-1"):
            use(f"{task}_{size}")
    assert config_parts(f"{task}_{size}-1") == (task, f"{size}-1")


@pytest.mark.parametrize("config", ["rte", "rte_", "_nano", "", "../rte_nano", "rte/x_nano", "r te_nano", "rte_nano\n"])
def test_other_forms_of_config_are_refused(config: str) -> None:
    with pytest.raises(SettingsError, match="not of the form <task>_<size>"):
        config_parts(config)


@pytest.mark.parametrize("config", ["über_nano", "r te_nano", ".x_nano"])
def test_characters_that_a_config_may_have_are_listed(config: str) -> None:
    with pytest.raises(SettingsError, match="it may have A-Z, a-z, 0-9"):
        config_parts(config)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"test_examples": -1}, "test_examples=-1 must be at least 1"),
        ({"eval_every": 0}, "eval_every=0 must be at least 1"),
        ({"learning_rate": -1e-9}, "learning_rate=-1e-09 must be at least 0 and at most 1e.30"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be at least 0 and at most 1e.30"),
        ({"subset": 300}, "subset=300 is larger than pool_size=200"),
        ({"batch_size": 129}, "batch_size=129 is larger than subset=128"),
        ({"steps": 97}, "steps=97 must be between 1 and the 96"),
        ({"steps": 0}, "steps=0 must be between 1"),
        ({"learning_rate": float("inf")}, "learning_rate=inf must be at least 0 and at most 1e.30"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0 and finite"),
        ({"top_p": 1.5}, "top_p=1.5 must be above 0 and at most 1"),
        ({"config": "rte"}, "not of the form"),
        ({"gradient_width": 0}, "gradient_width=0 must be at least 1"),
        ({"lora_alpha": 0}, "lora_alpha=0 must be at least 1"),
        ({"lora_rank": -1}, "lora_rank=-1 must be at least 0 and at most 65536"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0 must be at least 0 and below 1"),
        ({"lora_dropout": float("nan")}, "lora_dropout=nan must be at least 0 and below 1"),
        ({"max_length": 0}, "max_length=0 must be at least"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 must be at least 0 and finite"),
        ({"beta1": 1.0}, "beta1=1.0 must be at least 0 and below 1"),
        ({"beta2": -0.1}, "beta2=-0.1 must be at least 0 and below 1"),
        ({"epsilon": 0.0}, "epsilon=0.0 must be above 0 and finite"),
        ({"epsilon": float("nan")}, "epsilon=nan must be above 0 and finite"),
        ({"temperature": float("nan")}, "temperature=nan must be above 0 and finite"),
        ({"temperature": float("inf")}, "temperature=inf must be above 0 and finite"),
        ({"seed": -1}, "seed=-1 must be at least 0 and at most 9223372036854775807"),
        ({"seed": 2**63}, "seed=9223372036854775808 must be at least 0 and at most 9223372036854775807"),
        ({"seed": 10**5000}, "seed=a number of thousands of digits must be at least 0"),
        ({"gradient_seed": -1}, "gradient_seed=-1 must be at least 0"),
        ({"seed": 1.0}, "seed=1.0 must be a whole number"),
        ({"seed": True}, "seed=True must be a whole number"),
        ({"seed": None}, "seed=None must be a whole number"),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3' must be a number"),
        ({"max_length": 2**31}, "max_length=2147483648 must be at least 1 and at most 2147483647"),
        ({"lora_rank": 2**31}, "lora_rank=2147483648 must be at least 0 and at most 65536"),
        ({"pool_size": 2**30}, "pool_size=1073741824 is too large: ids or steps would be above 2147483647"),
        ({"config": "flan_nano", "test_examples": 2**29}, "test_examples=536870912 is too large"),
        ({"epochs": 2**28}, "epochs=268435456 is too large"),
        ({"base_model": 14}, "base_model=14 must be a text"),
        ({"base_model": "a\0b"}, "must not have NUL or unpaired surrogates"),
        ({"config": 7}, "config=7 must be a text"),
        ({"gradients": "some"}, "gradients='some' must be one of none, test, all"),
        ({"precision": "fp16"}, "precision='fp16' must be one of fp32, tf32, bf16"),
        ({"precision": "bf16", "gradients": "test"}, "exact only in fp32: give precision fp32, or gradients none"),
        ({"config": "flan_nano", "batch_size": 769}, "batch_size=769 is larger than subset=768"),
        ({"config": "rtx_nano"}, "unknown task 'rtx'"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RunSettings(**({"config": "rte_nano", "learning_rate": 1e-3} | wrong))


def test_steps_are_those_of_the_epochs_unless_cut() -> None:
    assert RunSettings("rte_nano", 1e-3).run_steps == 96
    assert RunSettings("rte_nano", 1e-3, steps=5).run_steps == 5
    assert RunSettings("rte_nano", 1e-3, subset=10, batch_size=4, epochs=2).run_steps == 4


def test_counts_of_a_mixture_are_of_each_task() -> None:
    settings = RunSettings("flan_nano", 1e-3, pool_size=10, subset=4, batch_size=8, epochs=2)
    assert (settings.parts, settings.examples, settings.run_steps) == (6, 24, 6)
    assert (settings.pool_ids, settings.unseen_pool_ids) == (range(60), range(60, 120))
    single = RunSettings("rte_nano", 1e-3)
    assert (single.parts, single.pool_ids, single.unseen_pool_ids) == (1, range(200), range(200, 400))


@pytest.mark.parametrize(
    ("gradients", "followed"), [("none", []), ("test", ["0004"]), ("all", ["0000", "0004", "u0004"])]
)
def test_gradients_are_followed_for_the_runs_asked_for(gradients: Any, followed: list[str]) -> None:
    settings = RunSettings("rte_nano", 1e-3, gradients=gradients)
    assert [run for run in ("0000", "0004", "u0004") if settings.follows_gradients(run)] == followed


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


@pytest.mark.parametrize("values", [{"learning_rate": 1e38}, {"learning_rate": 1e-3, "lora_rank": 2**31 - 1}])
def test_numbers_that_no_training_can_compute_with_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{list(values)[-1]}=.* must be .*at most"):
        RunSettings("rte_own", **values)
