from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptdynamics.dataset import read_dynamics

SLOW = "torch transformers datasets pyarrow sacrebleu rouge_score numpy".split()


@pytest.fixture
def collect_rte(command, tiny_model_folder: Path, rows_folder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """`gptdynamics collect rte_tiny` with two updates and four test examples."""

    def run(*more: str, rate: str = "0.001") -> tuple[int, str, str]:
        return command(
            *("collect", "rte_tiny", "--out", str(tmp_path / "out"), "--data", str(rows_folder)),
            *("--base-model", str(tiny_model_folder), "--learning-rate", rate),
            *("--runs", "2", "--steps", "2", "--test-examples", "4", "--workers", "1", *more),
        )

    return run


def test_help_shows_what_is_taken_where_an_option_is_left_out(command) -> None:  # type: ignore[no-untyped-def]
    _, out, _ = command("collect", "--help")
    shown = " ".join(out.replace("│", " ").split())
    for default in ("32", "200, or all rows if there are fewer", "none", "fp32", "0, all weights"):
        assert f"[default: ({default})]" in shown


@pytest.mark.parametrize("arguments", [["--help"], ["collect", "--help"]])
def test_help_imports_no_slow_library(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom gptdynamics.cli import main\n"
        f"sys.argv = ['gptdynamics', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('loaded:', *[name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "collect" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_the_module_gives_one_line_and_status_1_without_a_traceback(tmp_path: Path) -> None:
    arguments = ["-m", "gptdynamics.cli", "collect", "rte", "--learning-rate", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: config 'rte' is not of the form <task>_<size>, e.g. rte_nano\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["rtx_nano", "--learning-rate", "2"],
            "unknown task 'rtx'; known tasks: rte, sst2, boolq, webnlg, wmt16, cnn_dm, flan, mini_",
        ),
        (["rtx_nano", "--learning-rate", "1"], "unknown task 'rtx'; known tasks:"),
        (["nano", "--learning-rate", "1"], "config 'nano' is not of the form <task>_<size>"),
        (["rte_12b"], "no plan of this package has rte_12b: give --learning-rate"),
        (["rte_nano", "--steps", "1000"], "steps=1000 must be between 1 and the 96"),
        (["rte_nano", "--runs", "0"], "runs=0 must be at least 1"),
        (["rte_nano", "--workers", "0"], "workers=0 must be at least 1"),
        (["rte_nano", "--data", "/nowhere"], "/nowhere/rte/train.jsonl: no such file; --data DIR needs"),
    ],
)
def test_an_error_is_one_line_on_standard_error(command, tmp_path: Path, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    status, _, errors = command("collect", *arguments, "--out", str(tmp_path / "out"))
    assert status == 1
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("rte_nano")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_missing_base_model_is_one_line_with_the_known_sizes(collect_rte) -> None:  # type: ignore[no-untyped-def]
    status, _, errors = collect_rte("--base-model", "/nowhere/model")
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert status == 1
    assert "cannot load base model '/nowhere/model'" in line and "nano, smollm2, 14m" in line
    assert "Traceback" not in errors


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(collect_rte, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, output, errors = collect_rte("--dry-run")
    assert (status, errors) == (0, "")
    made, memory = output.splitlines()
    assert made == (
        "rte_tiny: 2 runs of 2 updates (batch 4, learning rate 0.001), 4 test examples; "
        f"2 to make in {tmp_path / 'out'}"
    )
    assert memory.startswith("rte_tiny: a worker needs about 0.4 GiB (weights 0.0, gradients and moments 0.0, ")
    assert not (tmp_path / "out").exists()


def test_runs_are_collected_once(collect_rte, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, output, _ = collect_rte()
    assert status == 0
    assert "2 runs made, 0 existed, 0 failed" in output
    assert read_dynamics(tmp_path / "out", "rte_tiny", "accuracy").values.shape == (2, 4, 3)
    status, output, _ = collect_rte("--dry-run")
    assert "0 to make" in output
    status, output, _ = collect_rte()
    assert "0 runs made, 2 existed, 0 failed" in output


def test_diverged_runs_give_one_clear_line_each_and_status_1(collect_rte, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for _ in range(2):
        status, output, errors = collect_rte("--steps", "4", rate="1e30")
        assert status == 1
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 2
        assert lines[0].startswith("error: run rte_tiny/0000 diverged: ") and lines[0].endswith(
            "Try a lower --learning-rate"
        )
        assert "0 runs made, 0 existed, 2 failed" in output
        assert "Traceback" not in errors


def test_other_settings_are_refused_with_the_difference(collect_rte) -> None:  # type: ignore[no-untyped-def]
    collect_rte()
    status, _, errors = collect_rte("--seed", "1")
    assert status == 1
    assert "made with other settings (seed: 0 there, 1 now)" in errors


@pytest.mark.parametrize("option", [["--gradients", "test"], ["--precision", "bf16"], ["--lora-rank", "2"]])
def test_options_of_training_reach_the_runs(collect_rte, tmp_path: Path, option: list[str]) -> None:  # type: ignore[no-untyped-def]
    status, _, errors = collect_rte(*option, "--runs", "1", "--eval-every", "2", "--generate-every", "2", "--seed", "3")
    assert (status, "error" in errors) == (0, False)
    manifest = json.loads((tmp_path / "out/manifests/rte_tiny.json").read_text(encoding="utf-8"))
    name, value = option[0].removeprefix("--").replace("-", "_"), option[1]
    expected = {name: int(value) if value.isdecimal() else value, "seed": 3, "eval_every": 2, "generate_every": 2}
    assert {key: manifest["settings"][key] for key in expected} == expected
    assert manifest["planned"] == {"runs": 1, "unseen_runs": 0}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--precision", "fp16"], "precision='fp16' must be one of fp32, tf32, bf16"),
        (["--gradients", "yes"], "gradients='yes' must be one of none, test, all"),
        (["--gradients", "all", "--precision", "bf16"], "gradient products are exact only in fp32"),
        (["--lora-rank", "-1"], "lora_rank=-1 must be at least 0"),
        (["--device", "tpu"], "device='tpu' must be auto, cpu, cuda or cuda:<number>"),
        (["--device", "cuda:99"], "device cuda:99 does not exist"),
    ],
)
def test_other_values_of_options_are_refused(collect_rte, tmp_path: Path, option: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    status, _, errors = collect_rte(*option)
    (line,) = [line for line in errors.splitlines() if line.strip()]
    assert (status, line.startswith("error: "), message in line) == (1, True, True)
    assert not (tmp_path / "out" / "data" / "rte_tiny").exists()


@pytest.fixture
def small_plan(tiny_model_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(
        f"""
        [defaults]
        base_model = "{tiny_model_folder}"
        learning_rate = 1e-3
        pool_size = 8
        subset = 8
        epochs = 1
        test_examples = 3

        [[config]]
        config = "rte_tiny"
        runs = 2
        unseen_runs = 1

        [[config]]
        config = "webnlg_tiny"
        runs = 1
        """,
        encoding="utf-8",
    )
    return path


def test_a_plan_is_collected_whole_or_by_config(  # type: ignore[no-untyped-def]
    command, small_plan: Path, rows_folder: Path, tmp_path: Path
) -> None:
    def collect(*more: str) -> str:
        arguments = ("--plan", str(small_plan), "--out", str(tmp_path / "out"), "--data", str(rows_folder))
        status, output, errors = command("collect", *more, *arguments, "--workers", "1")
        assert status == 0, errors
        return output.splitlines()[-1]

    assert collect("webnlg_tiny") == "1 runs made, 0 existed, 0 failed"
    assert collect() == "3 runs made, 1 existed, 0 failed"
    assert read_dynamics(tmp_path / "out", "rte_tiny", "loss", unseen=True).runs == ["0000", "0001", "u0000"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--runs", "3"], "--plan fixes the settings of its configs: leave out --runs, or edit the plan"),
        (["--runs", "0"], "--plan fixes the settings of its configs: leave out --runs, or edit the plan"),
        (["--seed", "1", "--eval-every", "2"], "leave out --eval-every, --seed, or edit the plan"),
        (["rte_14m"], "plan small has no config 'rte_14m'; it has: rte_tiny, webnlg_tiny"),
    ],
)
def test_a_plan_is_not_changed_by_options(
    command, small_plan: Path, tmp_path: Path, more: list[str], message: str
) -> None:  # type: ignore[no-untyped-def]
    status, output, errors = command("collect", *more, "--plan", str(small_plan), "--out", str(tmp_path / "out"))
    assert (status, output, len(errors.splitlines())) == (1, "", 1)
    assert message in errors


def test_something_to_collect_must_be_named(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, output, errors = command("collect", "--out", str(tmp_path / "out"))
    assert (status, output) == (1, "")
    assert errors == "error: nothing to collect: name configs, such as rte_nano, or give --plan\n"


def test_a_config_named_twice_is_refused(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, _, errors = command("collect", "rte_nano", "rte_nano", "--out", str(tmp_path / "out"))
    assert status == 1
    assert errors == "error: plan command line has config rte_nano twice: its runs would share names\n"


def test_a_bundled_config_has_the_hyper_parameters_of_its_plan(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, output, _ = command("collect", "flan_2.8b", "--out", str(tmp_path / "out"), "--dry-run")
    assert status == 0
    assert output.startswith("flan_2.8b: 32 runs of 192 updates (batch 8, learning rate 1e-05), 200 test examples;")


def test_the_plan_command_shows_configs_or_every_run(command, small_plan: Path) -> None:  # type: ignore[no-untyped-def]
    status, output, errors = command("plan")
    assert (status, errors) == (0, "")
    assert "11 configs, 352 runs" in output
    (row,) = [line.split() for line in output.splitlines() if "flan_2.8b" in line]
    assert row == ["flan_2.8b", "32", "25/2/5", "768/1200", "8", "192", "1e-5", "L8", "200"]
    status, output, _ = command("plan", "--plan", str(small_plan), "--each")
    assert [line.split("\t")[:3] for line in output.splitlines()] == [
        ["rte_tiny", "0000", "train"],
        ["rte_tiny", "0001", "train"],
        ["rte_tiny", "u0000", "test_unseen"],
        ["webnlg_tiny", "0000", "train"],
    ]


def test_a_plan_that_cannot_be_read_is_one_line(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bad.toml").write_text("[[config]]\n", encoding="utf-8")
    status, output, errors = command("plan", "--plan", str(tmp_path / "bad.toml"))
    assert (status, output, len(errors.splitlines())) == (1, "", 1)
    assert errors.startswith(f"error: {tmp_path / 'bad.toml'}: every [[config]] needs config")


def test_a_folder_that_cannot_be_written_is_one_line(collect_rte, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "out").write_text("in the way", encoding="utf-8")
    status, _, errors = collect_rte()
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith(f"error: cannot write {tmp_path / 'out'}")
    assert "Traceback" not in errors
