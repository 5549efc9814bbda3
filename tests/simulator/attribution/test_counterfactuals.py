"""Counterfactual curricula keep what they should and change the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from gptdynamics.errors import SettingsError
from simulator.attribution.counterfactuals import KINDS, draw_counterfactuals
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.what_if import WhatIf

CURRICULUM = [[0, 1], [2, 3], [4, 5], [0, 2], [1, 4], [3, 5]]


@pytest.fixture
def run(
    make_config: Callable[..., GPTfluenceConfig], make_model: Callable[[GPTfluenceConfig], GPTfluenceSimulator]
) -> WhatIf:
    return make_model(make_config("memory", pool=9)).what_if(CURRICULUM)


def test_each_kind_changes_what_it_says(run: WhatIf) -> None:
    drawn = draw_counterfactuals(run, each=4, share=1 / 6, seed=0)
    assert [each.kind for each in drawn] == [kind for kind in KINDS for _ in range(4)]
    before = {0, 1, 2, 3, 4, 5}
    for each in drawn:
        visits = Counter(key for batch in each.run.curriculum for key in batch)
        if each.kind == "leave_out":
            assert set(visits) < before and len(visits) == 5
        elif each.kind == "replace":
            assert len(set(visits) & before) == 5 and len(visits) == 6
        elif each.kind == "other_subset":
            assert len(visits) == 6 and set(visits.values()) == {2}
        else:
            assert sorted(each.run.curriculum) == sorted(run.curriculum)
    again = draw_counterfactuals(run, each=4, share=1 / 6, seed=0)
    assert [each.run.curriculum for each in again] == [each.run.curriculum for each in drawn]
    fewer = draw_counterfactuals(run, each=2, share=1 / 6, seed=0)
    assert {each.run.curriculum for each in fewer} <= {each.run.curriculum for each in drawn}
    assert len({each.run.curriculum for each in drawn}) > 8


def test_more_than_can_be_left_out_or_replaced_is_refused(run: WhatIf) -> None:
    with pytest.raises(SettingsError, match="leaving 5 of 6 examples out empties a batch"):
        draw_counterfactuals(run, each=1, share=0.9, seed=0)
    with pytest.raises(SettingsError, match=r"4 examples are to be replaced, .* only 3 of the pool unused"):
        KINDS["replace"](run, 4, None)  # type: ignore[arg-type]
