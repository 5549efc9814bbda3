from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum, linear_decay


@st.composite
def settings_of_any_size(draw: st.DrawFn) -> RunSettings:
    pool_size = draw(st.integers(1, 40))
    subset = draw(st.integers(1, pool_size))
    return RunSettings(
        config="rte_nano",
        learning_rate=1e-3,
        seed=draw(st.integers(0, 2**31)),
        pool_size=pool_size,
        subset=subset,
        batch_size=draw(st.integers(1, subset)),
        epochs=draw(st.integers(1, 4)),
    )


def pool_of(settings: RunSettings) -> list[int]:
    return [3 * at + 1 for at in range(settings.pool_size)]


@given(settings_of_any_size(), st.integers(0, 1000))
def test_each_epoch_permutes_the_same_subset_of_the_pool(settings: RunSettings, index: int) -> None:
    curriculum = draw_curriculum(settings, pool_of(settings), index)
    per_epoch = settings.subset // settings.batch_size
    assert len(curriculum) == settings.epochs * per_epoch
    assert {len(batch) for batch in curriculum} == {settings.batch_size}
    epochs = [curriculum[at : at + per_epoch] for at in range(0, len(curriculum), per_epoch)]
    seen = [{one for batch in epoch for one in batch} for epoch in epochs]
    assert all(len(ids) == per_epoch * settings.batch_size for ids in seen)  # none twice in an epoch
    assert set().union(*seen) <= set(pool_of(settings))
    assert len(set().union(*seen)) <= settings.subset
    if settings.subset % settings.batch_size == 0:
        assert all(ids == seen[0] for ids in seen)


@given(settings_of_any_size(), st.integers(0, 1000))
def test_same_seed_and_index_give_the_same_curriculum(settings: RunSettings, index: int) -> None:
    pool = pool_of(settings)
    assert draw_curriculum(settings, pool, index) == draw_curriculum(settings, pool, index)


def test_index_and_seed_both_change_the_curriculum_and_its_subset() -> None:
    settings = RunSettings("rte_nano", 1e-3)
    pool = list(range(200))
    drawn = [
        draw_curriculum(settings, pool, 0),
        draw_curriculum(settings, pool, 1),
        draw_curriculum(RunSettings("rte_nano", 1e-3, seed=1), pool, 0),
    ]
    subsets = [frozenset(one for batch in curriculum for one in batch) for curriculum in drawn]
    assert len(set(subsets)) == 3
    assert {len(subset) for subset in subsets} == {128}


def test_epochs_are_in_different_orders() -> None:
    curriculum = draw_curriculum(RunSettings("rte_nano", 1e-3), list(range(200)), 0)
    assert curriculum[:32] != curriculum[32:64]


@given(settings_of_any_size(), st.data())
def test_steps_cut_the_curriculum_and_change_nothing_before(settings: RunSettings, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, settings.all_steps))
    cut = RunSettings(**(settings.to_dict() | {"steps": steps}))
    pool = pool_of(settings)
    assert draw_curriculum(cut, pool, 5) == draw_curriculum(settings, pool, 5)[:steps]


@given(st.floats(1e-8, 1.0), st.integers(1, 300))
def test_decay_is_a_straight_line_from_the_peak_to_zero_after_the_last_update(peak: float, steps: int) -> None:
    rates = linear_decay(peak, steps)
    assert len(rates) == steps
    assert rates[0] == pytest.approx(peak)
    line = [*rates, 0.0]
    for before, after in pairwise(line):
        assert before - after == pytest.approx(peak / steps, rel=1e-6)
