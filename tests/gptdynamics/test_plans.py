from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.configs import RunSettings, split_of
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.plans import Plan, PlanEntry, read_plan, usual_training
from gptdynamics.plans.table import plan_table, run_lines

# Table 7: learning rate of each task on Pythia-410m.
FINETUNE = {"rte": 5e-7, "sst2": 5e-7, "boolq": 5e-7, "webnlg": 1e-6, "wmt16": 5e-7}
# Table 5: learning rate, epochs, steps and longest sequence of each size.
INSTRUCT = {
    "14m": (5e-7, 3, 288, 2048),
    "70m": (5e-7, 3, 288, 2048),
    "160m": (5e-7, 3, 288, 2048),
    "410m": (2e-7, 3, 288, 2048),
    "1b": (2e-7, 2, 192, 2048),
    "2.8b": (1e-5, 2, 192, 1024),
}


def write_plan(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_papers_plan_is_352_runs_of_11_configs_each_split_25_2_5() -> None:
    plan = read_plan("paper")
    assert plan.runs == sum(len(entry.run_names) for entry in plan) == 352
    finetune, instruct = [f"{task}_410m" for task in FINETUNE], [f"flan_{size}" for size in INSTRUCT]
    assert [entry.config for entry in plan] == finetune + instruct
    for entry in plan:
        assert Counter(map(split_of, entry.run_names)) == {"train": 25, "validation": 2, "test": 5}


def test_hyper_parameters_of_fine_tuning_are_those_of_table_7() -> None:
    plan = {entry.config: entry.settings for entry in read_plan("paper")}
    for task, rate in FINETUNE.items():
        run = plan[f"{task}_410m"]
        assert (run.learning_rate, run.batch_size, run.epochs, run.run_steps) == (rate, 4, 3, 96)
        assert (run.subset, run.pool_size, run.examples, run.max_length) == (128, 200, 128, 2048)


def test_hyper_parameters_of_instruction_tuning_are_those_of_table_5() -> None:
    plan = {entry.config: entry.settings for entry in read_plan("paper")}
    for size, (rate, epochs, steps, longest) in INSTRUCT.items():
        run = plan[f"flan_{size}"]
        assert (run.learning_rate, run.batch_size, run.epochs, run.run_steps) == (rate, 8, epochs, steps)
        assert (run.subset, run.pool_size, run.examples, run.max_length) == (128, 200, 768, longest)


def test_what_both_tables_share_holds_for_every_run_of_the_papers_plan() -> None:
    for entry in read_plan("paper"):
        run = entry.settings
        assert (run.beta1, run.beta2, run.epsilon, run.weight_decay) == (0.9, 0.999, 1e-6, 0.001)
        assert (run.precision, run.temperature, run.top_p) == ("fp32", 0.2, 0.95)
        assert (run.test_examples, run.eval_every, run.generate_every, run.base_model) == (200, 1, 1, None)


def test_only_the_largest_model_of_the_papers_plan_trains_adapters() -> None:
    plan = read_plan("paper")
    adapters = {entry.config: entry.settings for entry in plan if entry.settings.lora_rank}
    assert list(adapters) == ["flan_2.8b"]
    run = adapters["flan_2.8b"]
    assert (run.lora_rank, run.lora_alpha, run.lora_dropout) == (8, 4, 0.05)


def test_the_bundled_plan_of_nano_has_a_run_of_each_split_in_every_config() -> None:
    plan = read_plan("nano")
    assert plan.name == "nano"
    assert {"rte_nano", "flan_nano", "mini_triples_nano"} <= {entry.config for entry in plan}
    for entry in plan:
        assert {"train", "validation", "test"} <= set(map(split_of, entry.run_names))


def test_a_plan_lists_every_setting_and_every_run() -> None:
    plan = read_plan("paper")
    rows = plan.to_rows()
    assert rows[4] == {"runs": 32, "unseen_runs": 0} | plan.entries[4].settings.to_dict()
    lines = list(run_lines(plan.only(["flan_1b"])))
    assert lines[4] == "flan_1b\t0004\ttest\tseed 0\t1b\t2e-07\t192 updates of 8"
    assert len(lines) == 32
    assert plan_table(plan).row_count == 11


MINE = """
name = "mine"

[defaults]
runs = 6
learning_rate = 1e-3
test_examples = 20
weight_decay = 0

[[config]]
config = "rte_tiny"
base_model = "org/tiny"
unseen_runs = 2

[[config]]
config = "webnlg_tiny"
runs = 7
learning_rate = 2e-3
"""


def test_a_plan_of_ones_own_has_its_settings_over_its_defaults_over_ours(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path, MINE))
    assert (plan.name, plan.runs) == ("mine", 15)
    first, second = plan
    assert first == PlanEntry(
        RunSettings("rte_tiny", 1e-3, test_examples=20, weight_decay=0, base_model="org/tiny"), runs=6, unseen_runs=2
    )
    assert second == PlanEntry(RunSettings("webnlg_tiny", 2e-3, test_examples=20, weight_decay=0), runs=7)
    assert first.run_names == ["0000", "0001", "0002", "0003", "0004", "0005", "u0000", "u0001"]


def test_a_plan_without_a_name_is_called_as_its_file(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path, '[[config]]\nconfig = "rte_410m"\n'))
    assert (plan.name, plan.runs) == ("mine", 32)
    assert plan.entries[0].settings.learning_rate == 5e-7  # that of the paper's plan


def test_a_whole_number_may_stand_for_another_number(tmp_path: Path) -> None:
    path = write_plan(tmp_path, '[[config]]\nconfig = "rte_nano"\nlearning_rate = 1\n')
    assert read_plan(path).entries[0].settings.learning_rate == 1


CONFIG = '[[config]]\nconfig = "rte_nano"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            CONFIG + "batch = 4\n",
            "rte_nano has an unknown setting 'batch'; known are runs, unseen_runs, config, learn",
        ),
        ("[defaults]\nworkers = 4\n" + CONFIG, "rte_nano has an unknown setting 'workers'"),
        (CONFIG + 'batch_size = "4"\n', "rte_nano: batch_size = '4' is not of type int"),
        (CONFIG + "batch_size = 4.0\n", "rte_nano: batch_size = 4.0 is not of type int"),
        (CONFIG + "epochs = true\n", "rte_nano: epochs = True is not of type int"),
        (CONFIG + "steps = 1.5\n", "rte_nano: steps = 1.5 is not of type int"),
        (CONFIG + "learning_rate = [1e-3]\n", "rte_nano: learning_rate = [0.001] is not of type float"),
        (CONFIG + "learning_rate = true\n", "rte_nano: learning_rate = True is not of type float"),
        (CONFIG + "gradients = true\n", "rte_nano: gradients = True is not of type"),
        (CONFIG + "base_model = 14\n", "rte_nano: base_model = 14 is not of type"),
        (CONFIG + "precision = 32\n", "rte_nano: precision = 32 is not of type"),
        (CONFIG + "runs = 2.5\n", "rte_nano: runs = 2.5 is not a whole number"),
        (CONFIG + "unseen_runs = true\n", "rte_nano: unseen_runs = True is not a whole number"),
        (CONFIG + "runs = 0\n", "rte_nano: runs=0 must be at least 1"),
        (CONFIG + "unseen_runs = -1\n", "rte_nano: unseen_runs=-1 must be at least 0"),
        (CONFIG + "runs = 1e25\n", "rte_nano: runs = 1e+25 is not a whole number"),
        (CONFIG + f"runs = {10**25}\n", f"rte_nano: runs={10**25} must be at least 1 and at most 1000000"),
        (CONFIG + "seed = -1\n", "seed=-1 must be at least 0 and at most 9223372036854775807"),
        (CONFIG + "learning_rate = inf\n", "learning_rate=inf must be at least 0 and at most 1e+30"),
        (CONFIG + "seed = 1\nseed = 2\n", "not a TOML file ("),
        (CONFIG + f"seed = {'9' * 5000}\n", "it has an integer of more than 400 digits"),
        (CONFIG + f"seed = {'[' * 1500}{']' * 1500}\n", "it is nested deeper than 100"),
        (CONFIG + "batch_size = 1000\n", "batch_size=1000 is larger than subset=128"),
        (CONFIG + 'gradients = "some"\n', "gradients='some' must be one of none, test, all"),
        (CONFIG + CONFIG, "has config rte_nano twice: its runs would share names"),
        ("[[config]]\nruns = 3\n", 'every [[config]] needs config = "<task>_<size>"'),
        ("[[config]]\nconfig = 7\n", 'every [[config]] needs config = "<task>_<size>"'),
        ('[[config]]\nconfig = "nano"\nlearning_rate = 1\n', "config 'nano' is not of the form <task>_<size>"),
        ('[[config]]\nconfig = "rtx_nano"\nlearning_rate = 1\n', "unknown task 'rtx'; known tasks: rte"),
        ('[[config]]\nconfig = "../rte_nano"\nlearning_rate = 1\n', "config '../rte_nano' is not of the form"),
        ('[[config]]\nconfig = "rte_14m"\n', "no plan of this package has rte_14m"),
        ("[config]\nruns = 3\n", "a plan has one table [defaults] and a [[config]] for each config"),
        ('config = ["rte_nano"]\n', "a plan has one table [defaults] and a [[config]] for each config"),
        ("defaults = 3\n" + CONFIG, "a plan has one table [defaults] and a [[config]] for each config"),
        ("workers = 3\n" + CONFIG, "unknown 'workers'; a plan has name, [defaults] and [[config]]"),
        ("name = 3\n" + CONFIG, "name = 3 is not a text"),
        ("", "has no configs"),
        ("[defaults]\nruns = 3\n", "has no configs"),
        ("rte_nano: 32 runs\n", "not a TOML file ("),
        ('{"config": "rte_nano"}', "not a TOML file ("),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused_in_one_line_with_its_file(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write_plan(tmp_path, text)
    with pytest.raises(GPTDynamicsError) as error:
        read_plan(path)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).count(str(path)) == 1
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_text_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"^{path}: not a TOML file"):
        read_plan(path)


@pytest.mark.parametrize("name", ["papers", "nowhere/plan.toml", "."])
def test_a_plan_that_is_not_there_is_named_with_the_bundled_ones(name: str) -> None:
    with pytest.raises(DataError) as error:
        read_plan(name)
    assert str(error.value).startswith(f"{name}: cannot be read (")
    assert str(error.value).endswith("a plan is a TOML file or one of paper, nano, smollm2, smollm2_gpu")


def test_a_plan_may_be_cut_to_some_of_its_configs_in_the_order_given() -> None:
    plan = read_plan("paper").only(["flan_1b", "rte_410m"])
    assert [entry.config for entry in plan] == ["flan_1b", "rte_410m"]
    assert (plan.name, plan.runs) == ("paper", 64)
    with pytest.raises(SettingsError, match="plan paper has no config 'rte_1b'; it has: rte_410m, sst2_410m"):
        read_plan("paper").only(["rte_1b"])


@pytest.mark.parametrize("entries", [(), (PlanEntry(RunSettings("rte_nano", 1e-3)),) * 2])
def test_a_plan_has_each_config_once_and_at_least_one(entries: tuple[PlanEntry, ...]) -> None:
    with pytest.raises(SettingsError, match=r"plan mine has (no configs|config rte_nano twice)"):
        Plan("mine", entries)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("webnlg_410m", {"learning_rate": 1e-6, "batch_size": 4, "epochs": 3, "max_length": 2048, "lora_rank": 0}),
        ("flan_2.8b", {"learning_rate": 1e-5, "batch_size": 8, "epochs": 2, "max_length": 1024, "lora_rank": 8}),
    ],
)
def test_training_of_a_bundled_config_is_known_by_its_name(config: str, expected: dict[str, Any]) -> None:
    known = usual_training(config)
    assert {name: known[name] for name in expected} == expected
    # What is followed is not part of training.
    assert not known.keys() & {"runs", "unseen_runs", "test_examples", "eval_every", "generate_every", "gradients"}


def test_training_of_another_config_is_not_known() -> None:
    with pytest.raises(SettingsError, match="no plan of this package has rte_14m: give --learning-rate"):
        usual_training("rte_14m")
