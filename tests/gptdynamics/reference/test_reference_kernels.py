"""Kernels along a run that is made again: those of a collection, those of new examples, and what the cache has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdynamics.cache import BASE_MODELS, KERNELS, cache_folder, usage
from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum, linear_decay, run_seed
from gptdynamics.dataset.gradient_reading import GradientProducts, read_products
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.gradients import gradient_kernel
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.reference import (
    KernelEstimate,
    NotRepeatableError,
    ReferenceRun,
    estimate_reference_kernels,
    reference_kernels,
)
from gptdynamics.runs import Bench
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks import get_task, load_examples

KERNEL = KernelSettings(checkpoints=3, columns=8)
LORA = {"lora_rank": 3, "lora_alpha": 6, "lora_dropout": 0.25, "learning_rate": 0.05}
# Configs of the folder: a label task, a generation task with adapters, and a mixture.
CONFIGS: dict[str, dict[str, Any]] = {
    "rte_tiny": {"epochs": 2},
    "webnlg_tiny": {"epochs": 2, "eval_every": 2, **LORA},
    "flan_tiny": {"pool_size": 4, "subset": 2, "test_examples": 2, "batch_size": 3},
}


@pytest.fixture(scope="module")
def dataset(
    tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., RunSettings], rows_folder: Path
) -> Path:
    """Runs 0000 to 0004 with the kernel of 0000 and of a counterfactual run; not to be changed."""
    out = tmp_path_factory.mktemp("reference") / "dataset"
    entries = [
        PlanEntry(
            make_settings(config, **changes),
            5,
            counterfactuals={"0004": 1},
            kernels_of=("0000", "c0004-0000"),
            kernel=KERNEL,
        )
        for config, changes in CONFIGS.items()
    ]
    collect(CollectSettings(Plan("reference", tuple(entries)), out, rows_folder, workers=1, device="cpu"))
    return out


@pytest.fixture(autouse=True)
def own_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Path) -> None:
    """An empty cache, which knows where the base model is."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / BASE_MODELS.name).symlink_to(cache_folder() / BASE_MODELS.name)
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path / "cache"))


def examples_of(settings: RunSettings, rows: Path) -> tuple[list[Example], list[Example]]:
    task = get_task(settings.task)
    return load_examples(task, "pool", settings.pool_size, rows), load_examples(
        task, "test", settings.test_examples, rows
    )


def new_examples() -> list[Example]:
    """Texts that are in no file."""
    return [
        Example(0, "The red ball is old.\nQuestion: Is the ball red? Yes or no?\nAnswer:", " yes", task="rte"),
        Example(0, "Facts: The river | colour | red\nText:", " The river is red.", ("The river is red.",), "webnlg"),
    ]


def differ_in_texts(examples: list[Example]) -> bool:
    return len({(example.prompt, example.target) for example in examples}) == len(examples)


class Notes(list[str]):
    """Lines that were told."""

    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("run", ["0000", "c0004-0000"])
def test_products_of_the_runs_own_examples_are_those_of_the_collection(
    dataset: Path, rows_folder: Path, config: str, run: str
) -> None:
    reference, notes = ReferenceRun.of(dataset, config, run), Notes()
    recorded = read_products(dataset, config, run)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    examples = examples_of(reference.settings, rows_folder)
    found = reference_kernels(reference, *examples, KERNEL, on_note=notes)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert notes == []
    assert found.step.tolist() == recorded.step.tolist() and len(found.step) > 1
    assert (found.pool_ids, found.test_ids) == (recorded.pool_ids, recorded.test_ids)
    np.testing.assert_allclose(found.values, recorded.values, rtol=1e-4, atol=1e-6 * np.abs(recorded.values).max())
    assert found.kernel is not None and recorded.kernel is not None
    assert [each.step for each in found.kernel.checkpoints] == found.step.tolist()
    assert (found.kernel.columns, found.kernel.seed) == (recorded.kernel.columns, recorded.kernel.seed)
    if all(differ_in_texts(side) for side in examples):
        # The same examples in the same batches.
        np.testing.assert_array_equal(found.values, recorded.values)


def slow_kernels(
    settings: RunSettings, rows: Path, pool: list[Example], test: list[Example], steps: list[int]
) -> np.ndarray:
    """The kernel of each step, from the models of a bench."""
    bench = Bench.load(settings, rows)
    rates = linear_decay(settings.learning_rate, settings.run_steps)
    models = bench.weights(draw_curriculum(settings, "0000"), rates, run_seed(settings, "0000"))
    tokens = [[bench.tokenize(example) for example in side] for side in (pool, test)]
    return np.stack(
        [gradient_kernel(model, *tokens, columns=8).products for step, model in enumerate(models) if step in steps]
    )


@pytest.mark.parametrize("config", ["rte_tiny", "webnlg_tiny"])
def test_examples_that_nobody_has_seen_have_the_products_of_a_slow_loop(
    dataset: Path, rows_folder: Path, config: str
) -> None:
    reference = ReferenceRun.of(dataset, config, "0000")
    pool, test = examples_of(reference.settings, rows_folder)
    test = [*new_examples(), test[1]]
    pool = [new_examples()[1], pool[3], new_examples()[0]]
    found = reference_kernels(reference, pool, test, KERNEL, steps=[4, 1])
    assert found.step.tolist() == [1, 4]
    slow = slow_kernels(reference.settings, rows_folder, pool, test, [1, 4])
    np.testing.assert_allclose(found.values, slow, rtol=1e-3, atol=1e-5 * np.abs(slow).max())


def test_a_second_call_makes_no_run_and_more_examples_take_only_what_is_missing(
    dataset: Path, rows_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    pool, test = examples_of(reference.settings, rows_folder)
    new = new_examples()[0]

    def taken(pool: list[Example], test: list[Example]) -> tuple[tuple[int, int], GradientProducts]:
        estimate = estimate_reference_kernels(reference, pool, test, KERNEL, rate=1e9)
        assert (estimate.seconds > 0) == (estimate.memory > 0) == (estimate.disk > 0) == (estimate.pool > 0)
        return (estimate.pool, estimate.test), reference_kernels(reference, pool, test, KERNEL)

    different = len({(each.prompt, each.target) for each in pool[:6]})
    count, first = taken(pool[:6], test[:3])
    assert count == (different, 3)
    # A new pool row needs all test examples, a new test example all pool rows.
    count, second = taken([*pool[:6], new], test[:3])
    assert count == (1, 3)
    np.testing.assert_array_equal(second.values[:, :6], first.values)
    count, third = taken([new, *pool[:6]], [test[0], new, test[1]])
    assert count == (different + 1, 1)
    np.testing.assert_array_equal(third.values[:, 1:][:, :, [0, 2]], first.values[:, :, :2])
    slow = slow_kernels(reference.settings, rows_folder, [new], [new], [0, 1, 3])
    np.testing.assert_allclose(third.values[:, :1, 1:2], slow, rtol=1e-3)

    monkeypatch.setattr(ReferenceRun, "load_base", lambda self, device: pytest.fail("the run was made again"))
    count, again = taken([*pool[:6][::-1], new, new], test[:2])
    assert count == (0, 0)
    np.testing.assert_array_equal(again.values[:, :6], first.values[:, ::-1, :2])
    np.testing.assert_array_equal(again.values[:, 6], again.values[:, 7])
    [kept] = [each for each in usage() if each.kind == KERNELS.name]
    assert kept.entries == 3


def test_what_a_kernel_depends_on_is_taken_anew(dataset: Path, rows_folder: Path) -> None:
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    pool, test = examples_of(reference.settings, rows_folder)
    first = reference_kernels(reference, pool[:2], test[:2], KERNEL)
    others = [
        (reference, replace(KERNEL, columns=9), None),
        (reference, replace(KERNEL, seed=1), None),
        (ReferenceRun.of(dataset, "rte_tiny", "0001"), KERNEL, None),
        (reference, KERNEL, [2]),
    ]
    for run, settings, steps in others:
        assert estimate_reference_kernels(run, pool[:2], test[:2], settings, steps=steps, rate=1e9).pool == 2
        found = reference_kernels(run, pool[:2], test[:2], settings, steps=steps)
        assert found.values[-1].tolist() != first.values[-1].tolist()
    assert estimate_reference_kernels(reference, pool[:2], test[:2], replace(KERNEL, memory=2.0)).seconds == 0


def test_an_estimate_grows_with_what_is_asked_for(dataset: Path, rows_folder: Path) -> None:
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    pool, test = examples_of(reference.settings, rows_folder)

    def estimate(examples: int, rate: float = 1e9, steps: list[int] | None = None) -> KernelEstimate:
        return estimate_reference_kernels(
            reference, pool[:examples], [*test[:2], *new_examples()], KERNEL, steps=steps, rate=rate
        )

    few = estimate(1)
    assert (few.pool, few.test, few.disk) == (1, 4, 4 * 3 * 1 * 4)
    assert estimate(3).seconds > few.seconds == 2 * estimate(1, 2e9).seconds
    assert estimate(1, steps=[0]).seconds < estimate(1, steps=[1]).seconds < estimate(1, steps=[0, 1]).seconds
    adapters = estimate_reference_kernels(ReferenceRun.of(dataset, "webnlg_tiny", "0000"), pool[:1], test[:1], KERNEL)
    assert 2**32 < adapters.memory < few.memory
    assert adapters.seconds > 0


def test_progress_grows_to_its_end(dataset: Path, rows_folder: Path) -> None:
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    pool, test = examples_of(reference.settings, rows_folder)
    told: list[tuple[int, int]] = []
    reference_kernels(reference, pool, test, KERNEL, progress=lambda done, total: told.append((done, total)))
    done, totals = [each for each, _ in told], {total for _, total in told}
    assert len(totals) == 1 and done == sorted(done) and done[0] < done[-1] == totals.pop()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_run_that_was_written_down_is_made_again_without_the_dataset(
    dataset: Path, rows_folder: Path, config: str
) -> None:
    reference = ReferenceRun.of(dataset, config, "0000")
    text = json.dumps(reference.to_dict())
    assert "Question" not in text and "Facts" not in text
    carried = ReferenceRun.from_dict(json.loads(text), rows_folder)
    assert replace(carried, data=None) == reference
    pool, test = examples_of(reference.settings, rows_folder)
    notes = Notes()
    found = reference_kernels(carried, pool, test, KERNEL, on_note=notes)
    assert notes == []
    # Where the texts are at hand, the same kernel is found in the cache.
    assert estimate_reference_kernels(reference, pool, test, KERNEL, rate=1e9).pool == 0
    np.testing.assert_allclose(found.values, read_products(dataset, config, "0000").values, rtol=1e-4, atol=1e-4)
    with pytest.raises(NotRepeatableError, match=r"cannot be repeated: .*no such file.*collect --kernels"):
        reference_kernels(ReferenceRun.from_dict(json.loads(text), rows_folder / "none"), pool, test, KERNEL)


@pytest.mark.parametrize("config", CONFIGS)
def test_texts_that_a_release_leaves_out_come_from_the_rows(
    dataset: Path, rows_folder: Path, tmp_path: Path, config: str
) -> None:
    copy_without_texts(dataset, tmp_path / "copy", keep=lambda task: False)
    reference = ReferenceRun.of(tmp_path / "copy", config, "0000", data=rows_folder)
    notes = Notes()
    pool, test = examples_of(reference.settings, rows_folder)
    found = reference_kernels(reference, pool, test, KERNEL, on_note=notes)
    assert notes == []
    np.testing.assert_allclose(found.values, read_products(dataset, config, "0000").values, rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match=r"has no texts, which gradients need.*restore_texts"):
        reference_kernels(reference, [replace(pool[0], prompt="", references=())], test, KERNEL)


def test_rows_that_cannot_be_had_for_the_comparison_are_said(dataset: Path, rows_folder: Path, tmp_path: Path) -> None:
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    (tmp_path / "rte").mkdir()
    (tmp_path / "rte/train.jsonl").write_bytes((rows_folder / "rte/train.jsonl").read_bytes())
    carried = ReferenceRun.from_dict(reference.to_dict(), tmp_path)
    pool, test = examples_of(reference.settings, rows_folder)
    for _ in range(2):
        notes = Notes()
        reference_kernels(carried, pool[:2], test[:2], KERNEL, on_note=notes)
        assert len(notes) == 1 and "could not be compared with its recorded losses" in notes[0]


def changed_losses(reference: ReferenceRun, index: int, by: float) -> ReferenceRun:
    values = [list(each) for each in reference.recorded.values]
    values[index] = [value + by for value in values[index]]
    return replace(reference, recorded=replace(reference.recorded, values=tuple(map(tuple, values))))


def test_a_run_that_comes_out_differently_is_said_in_one_line(dataset: Path, rows_folder: Path) -> None:
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    pool, test = examples_of(reference.settings, rows_folder)
    for _ in range(2):
        notes = Notes()
        reference_kernels(changed_losses(reference, 3, 0.5), pool[:2], test[:2], KERNEL, on_note=notes)
        assert len(notes) == 1 and "\n" not in notes[0]
        assert (
            "run 0000 of rte_tiny, repeated, differs from the recorded run: its losses at step 3 are 0.5 from"
            in notes[0]
        )


def test_another_tokenizer_is_refused(
    dataset: Path, rows_folder: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / tiny_model_folder.name
    other.mkdir()
    for path in tiny_model_folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    reference = replace(reference, settings=replace(reference.settings, base_model=str(other)))
    pool, test = examples_of(reference.settings, rows_folder)
    with pytest.raises(NotRepeatableError, match=r"before the first update.*tokenizer.*collect --kernels") as raised:
        reference_kernels(reference, pool, test, KERNEL)
    assert "\n" not in str(raised.value)


def test_another_base_model_is_refused(dataset: Path, rows_folder: Path) -> None:
    reference = replace(ReferenceRun.of(dataset, "rte_tiny", "0000"), base_revision="0123")
    pool, test = examples_of(reference.settings, rows_folder)
    with pytest.raises(
        NotRepeatableError,
        match=r"run 0000 of rte_tiny cannot be repeated: it started from \S+ 0123, but here that is \w{12}\. .*or",
    ):
        reference_kernels(reference, pool, test, KERNEL)


def test_runs_that_were_recorded_or_imported_are_refused(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "copy")
    path = tmp_path / "copy/manifests/rte_tiny.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for part, reason in (("recording", "was recorded from a training"), ("origin", "was imported")):
        path.write_text(json.dumps(manifest | {"settings": {}, part: {}}), encoding="utf-8")
        with pytest.raises(NotRepeatableError, match=rf"{reason}.*collect --kernels.*--dynamics memory"):
            ReferenceRun.of(tmp_path / "copy", "rte_tiny", "0000")
    path.unlink()
    with pytest.raises(NotRepeatableError, match="has no manifest"):
        ReferenceRun.of(tmp_path / "copy", "rte_tiny", "0000")


def test_what_cannot_be_asked_for_is_refused(dataset: Path, rows_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no run '0017' of rte_tiny; it has 0000 to c0004-0000"):
        ReferenceRun.of(dataset, "rte_tiny", "0017")
    reference = ReferenceRun.of(dataset, "rte_tiny", "0000")
    pool, test = examples_of(reference.settings, rows_folder)
    for steps in ([], [-1], [5]):
        with pytest.raises(SettingsError, match="must be from 0 to 4"):
            reference_kernels(reference, pool, test, KERNEL, steps=steps)
    with pytest.raises(DataError, match="kernels need test examples"):
        reference_kernels(reference, pool, [], KERNEL)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("run"),
        lambda values: values.update(curriculum=[[0]]),
        lambda values: values.update(learning_rate=[0.1]),
        lambda values: values.update(settings={"config": "rte_tiny"}),
        lambda values: values["pool"][0].update(id="0"),
        lambda values: values.update(recorded=None),
    ],
)
def test_a_damaged_account_is_refused(dataset: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = ReferenceRun.of(dataset, "rte_tiny", "0000").to_dict()
    change(values)
    with pytest.raises(DataError, match="stored reference run is damaged"):
        ReferenceRun.from_dict(values)
