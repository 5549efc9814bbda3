"""Every damage is named once: in which file, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptdynamics.dataset.verify import Fault, verify
from tests.gptdynamics.dataset.verify.damage import Case
from tests.gptdynamics.dataset.verify.folder_cases import FOLDER_CASES
from tests.gptdynamics.dataset.verify.run_cases import RUN_CASES

CASES = RUN_CASES | FOLDER_CASES


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_fault_is_named_once_with_its_file_and_place(case: Case, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(case.folder)
    case.damage(root / case.file)
    found = verify(root)
    assert not found.ok
    assert [(fault.file, fault.where) for fault in found.faults] == case.faults
    assert found.faults[0].what.startswith(case.what)
    assert found.faults[0].remedy


def test_every_fault_is_named(gradients: Path) -> None:
    chosen = (
        *("bleu of a label", "grad_dot infinite", "product not a number", "products nobody asked for", "stray file"),
        *("vector infinite", "grad_dot where none is recorded", "pool id in an unseen run", "not a label", "rates"),
        *("seed", "versions", "no prompt", "example twice", "loss infinite", "card without a split"),
    )
    cases = [CASES[name] for name in chosen]
    for case in cases:
        case.damage(gradients / case.file)
    found = {(fault.file, fault.where): fault.what for fault in verify(gradients).faults}
    assert found.keys() == {fault for case in cases for fault in case.faults}
    for case in cases:
        assert found[case.faults[0]].startswith(case.what)


def test_a_fault_is_one_line() -> None:
    fault = Fault("data/rte_tiny/train-0000.parquet", "loss", "nan", "Delete it")
    assert str(fault) == "data/rte_tiny/train-0000.parquet: loss: nan. Delete it"
    assert str(Fault("README.md", "", "lost", "Restore it")) == "README.md: lost. Restore it"
