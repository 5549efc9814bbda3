from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.configs import RunSettings, run_name
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


RUN = st.integers(0, 1000).map(run_name)


@given(settings_of_any_size(), RUN)
def test_each_epoch_permutes_the_same_subset_of_the_pool(settings: RunSettings, run: str) -> None:
    curriculum = draw_curriculum(settings, run)
    per_epoch = settings.subset // settings.batch_size
    assert len(curriculum) == settings.epochs * per_epoch
    assert {len(batch) for batch in curriculum} == {settings.batch_size}
    epochs = [curriculum[at : at + per_epoch] for at in range(0, len(curriculum), per_epoch)]
    seen = [{one for batch in epoch for one in batch} for epoch in epochs]
    assert all(len(ids) == per_epoch * settings.batch_size for ids in seen)  # none twice in an epoch
    assert set().union(*seen) <= set(range(settings.pool_size))
    assert len(set().union(*seen)) <= settings.subset
    if settings.subset % settings.batch_size == 0:
        assert all(ids == seen[0] for ids in seen)


@given(settings_of_any_size(), RUN)
def test_same_seed_and_index_give_the_same_curriculum(settings: RunSettings, run: str) -> None:
    assert draw_curriculum(settings, run) == draw_curriculum(settings, run)


def test_index_and_seed_both_change_the_curriculum_and_its_subset() -> None:
    settings = RunSettings("rte_nano", 1e-3)
    drawn = [
        draw_curriculum(settings, "0000"),
        draw_curriculum(settings, "0001"),
        draw_curriculum(RunSettings("rte_nano", 1e-3, seed=1), "0000"),
        draw_curriculum(settings, "u0000"),
        draw_curriculum(settings, "u0001"),
    ]
    subsets = [frozenset(one for batch in curriculum for one in batch) for curriculum in drawn]
    assert len(set(subsets)) == 5
    assert {len(subset) for subset in subsets} == {128}


def test_epochs_are_in_different_orders() -> None:
    curriculum = draw_curriculum(RunSettings("rte_nano", 1e-3), "0000")
    assert curriculum[:32] != curriculum[32:64]


@given(settings_of_any_size(), st.data())
def test_steps_cut_the_curriculum_and_change_nothing_before(settings: RunSettings, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, settings.all_steps))
    cut = RunSettings(**(settings.to_dict() | {"steps": steps}))
    assert draw_curriculum(cut, "0005") == draw_curriculum(settings, "0005")[:steps]


@given(settings_of_any_size(), st.integers(0, 1000))
def test_runs_on_unseen_rows_use_those_rows_only(settings: RunSettings, index: int) -> None:
    used = {at for batch in draw_curriculum(settings, run_name(index, unseen=True)) for at in batch}
    assert min(used) >= settings.pool_size
    assert max(used) < 2 * settings.pool_size


@st.composite
def mixtures_of_any_size(draw: st.DrawFn) -> RunSettings:
    pool_size = draw(st.integers(1, 12))
    subset = draw(st.integers(1, pool_size))
    return RunSettings(
        config="flan_tiny",
        learning_rate=1e-3,
        seed=draw(st.integers(0, 2**31)),
        pool_size=pool_size,
        subset=subset,
        batch_size=draw(st.sampled_from([1, 2, 3, 6])),
        epochs=draw(st.integers(1, 3)),
    )


@given(mixtures_of_any_size(), st.integers(0, 1000), st.booleans())
def test_each_task_of_a_mixture_gives_as_many_examples_and_every_epoch_permutes_them(
    settings: RunSettings, index: int, unseen: bool
) -> None:
    curriculum = draw_curriculum(settings, run_name(index, unseen))
    per_epoch = 6 * settings.subset // settings.batch_size
    assert len(curriculum) == settings.epochs * per_epoch
    first = sorted(at for batch in curriculum[:per_epoch] for at in batch)
    assert len(set(first)) == len(first)
    assert Counter(at % 6 for at in first) == dict.fromkeys(range(6), settings.subset)
    for begin in range(0, len(curriculum), per_epoch):
        assert sorted(at for batch in curriculum[begin : begin + per_epoch] for at in batch) == first
    rows = {at // 6 for at in first}
    assert min(rows) >= (settings.pool_size if unseen else 0)
    assert max(rows) < (2 if unseen else 1) * settings.pool_size


def test_tasks_of_a_mixture_are_mixed_within_an_epoch() -> None:
    curriculum = draw_curriculum(RunSettings("flan_tiny", 1e-3, batch_size=8), "0000")
    assert len({at % 6 for at in curriculum[0]}) > 1
    assert curriculum[:96] != curriculum[96:192]


@given(st.floats(1e-8, 1.0), st.integers(1, 300))
def test_decay_is_a_straight_line_from_the_peak_to_zero_after_the_last_update(peak: float, steps: int) -> None:
    rates = linear_decay(peak, steps)
    assert len(rates) == steps
    assert rates[0] == pytest.approx(peak)
    line = [*rates, 0.0]
    for before, after in pairwise(line):
        assert before - after == pytest.approx(peak / steps, rel=1e-6)
