from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gptdynamics
from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.gradient_reading import read_products, read_vectors
from gptdynamics.dataset.sample import make_sample, round_bits
from gptdynamics.dataset.verify import verify
from tests.cards import check_whole, code, lines_of, tables

BUNDLED = Path(gptdynamics.__file__).parent
bundled = pytest.mark.skipif(not (BUNDLED / "data").is_dir(), reason="this checkout has no bundled sample")


@given(st.floats(width=32, min_value=2.0**-100, max_value=2.0**100), st.integers(2, 24), st.sampled_from([1, -1]))
def test_rounding_keeps_so_many_significant_bits(value: float, bits: int, sign: int) -> None:
    (rounded,) = round_bits(np.array([sign * value], np.float32), bits)
    assert abs(rounded - sign * value) <= value * 2.0**-bits
    mantissa, _ = np.frexp(rounded)
    assert mantissa * 2**bits == np.round(mantissa * 2**bits)


def test_zero_stays_zero() -> None:
    assert (round_bits(np.array([0.0, -0.0], np.float32), 6) == 0).all()


@bundled
def test_the_bundled_sample_is_sound_small_and_without_texts() -> None:
    found = verify(BUNDLED)
    assert found.faults == []
    parts = [
        BUNDLED / "README.md",
        BUNDLED / "trajectories.svg",
        *BUNDLED.glob("manifests/*"),
        *BUNDLED.glob("data/*/*"),
    ]
    assert sum(path.stat().st_size for path in parts) < 12e6
    dynamics = read_dynamics(BUNDLED, "rte_nano", "loss")
    assert all(example.withheld for example in dynamics.pool + dynamics.test)


@bundled
def test_a_sample_of_the_sample_is_the_same(tmp_path: Path) -> None:
    make_sample(BUNDLED, tmp_path / "again")
    for path in [*BUNDLED.glob("data/**/*.parquet"), BUNDLED / "README.md", BUNDLED / "trajectories.svg"]:
        assert (tmp_path / "again" / path.relative_to(BUNDLED)).read_bytes() == path.read_bytes(), path
    assert verify(tmp_path / "again").faults == []


@bundled
def test_the_card_of_the_sample_is_whole_and_plots_by_the_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    matplotlib.use("agg")
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    check_whole(card, ["How it was made", "Load and plot", "Limits", "Licences", "Citation", "This sample"])
    assert lines_of((BUNDLED / "trajectories.svg").read_bytes()) == 9 * 10
    assert {row[3] for row in tables(card)[1][1:] if not row[0].startswith("mini_")} == {"left out"}
    assert code(card, "bash") == ["make nano-release sample DATA=<folder with corpus/ and tasks/>\n"]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    names: dict[str, Any] = {}
    (plot,) = code(card, "python")
    exec(plot, names)
    (line,) = names["plt"].gca().lines
    assert line.get_ydata().tolist() == names["row"]["loss"]
    names["plt"].close()


@bundled
def test_gradients_of_the_sample_are_there_for_held_out_runs() -> None:
    vectors = read_vectors(BUNDLED, "rte_nano")
    assert vectors is not None and len(vectors.test) == 100
    products = read_products(BUNDLED, "rte_nano", "0004")
    assert products.values.shape == (11, 200, 100)
