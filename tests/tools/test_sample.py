from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gptdynamics
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.gradient_reading import read_products, read_vectors
from gptdynamics.dataset.reading import read_examples
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.metrics import METRICS
from gptdynamics.runs import Bench
from tests.cards import check_whole, code, lines_of, tables
from tools.sample import combine, make_sample, round_bits

BUNDLED = Path(gptdynamics.__file__).parent
SHARED_TASKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"
bundled = pytest.mark.skipif(not (BUNDLED / "data").is_dir(), reason="this checkout has no bundled sample")


@given(st.floats(width=32, min_value=2.0**-100, max_value=2.0**100), st.integers(2, 24), st.sampled_from([1, -1]))
def test_rounding_keeps_so_many_significant_bits(value: float, bits: int, sign: int) -> None:
    (rounded,) = round_bits(np.array([sign * value], np.float32), bits)
    assert abs(rounded - sign * value) <= value * 2.0**-bits
    mantissa, _ = np.frexp(rounded)
    assert mantissa * 2**bits == np.round(mantissa * 2**bits)


def test_examples_of_one_task_become_one_file(tmp_path: Path) -> None:
    def example(key: int, prompt: str, row: str = "") -> Example:
        return Example(key, prompt, " positive" if prompt else "", task="sst2", source={"row": row or str(key)})

    few, more, other, both = (tmp_path / name for name in ("few", "more", "other", "both"))
    DatasetFolder(few).add_examples("sst2", "pool", [example(0, ""), example(1, "one")])
    DatasetFolder(more).add_examples("sst2", "pool", [example(0, "nought"), example(1, ""), example(2, "two")])
    DatasetFolder(other).add_examples("sst2", "pool", [example(0, "nought", row="9")])
    combine([few, more], both)
    assert [each.prompt for each in read_examples(DatasetFolder(both), "sst2", "pool")] == ["nought", "one", "two"]
    with pytest.raises(DataError, match="example 0 is another row"):
        combine([few, other], tmp_path / "wrong")
    shutil.copytree(few / "data/sst2_examples", few / "data/sst2_tiny")
    with pytest.raises(DataError, match="another folder has it, too"):
        combine([few, few], tmp_path / "twice")


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
    assert sum(path.stat().st_size for path in parts) < 16e6
    dynamics = read_dynamics(BUNDLED, "rte_nano", "loss")
    assert all(example.withheld for example in dynamics.pool + dynamics.test)


@bundled
def test_a_sample_of_the_sample_is_the_same(tmp_path: Path) -> None:
    make_sample([BUNDLED], tmp_path / "again")
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
    assert lines_of((BUNDLED / "trajectories.svg").read_bytes()) == 9 * len(DatasetFolder(BUNDLED).configs())
    assert {row[3] for row in tables(card)[1][1:] if not row[0].startswith("mini_")} == {"left out"}
    assert code(card, "bash") == ["make nano-release smollm2-release sample DATA=<folder with corpus/ and tasks/>\n"]
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


@bundled
@pytest.mark.slow
@pytest.mark.skipif(not SHARED_TASKS.is_dir(), reason="no shared/data/tasks beside the repository")
@pytest.mark.parametrize("run", ["rte_nano/0000", "rte_nano/u0000", "webnlg_nano/0000", "flan_nano/0000"])
def test_a_run_of_the_sample_made_again_is_the_same(tmp_path: Path, run: str) -> None:
    config, name = run.split("/")
    there, again = DatasetFolder(BUNDLED), DatasetFolder(tmp_path)
    manifest = there.manifest(config)
    settings = RunSettings.from_dict(manifest["settings"])
    bench = Bench.load(settings, SHARED_TASKS, manifest["planned"]["unseen_runs"] > 0)
    again.add_run(settings, (bench.base.name, bench.base.revision), bench.test, bench.run(name))
    assert again.run_row_path(config, name).read_bytes() == there.run_row_path(config, name).read_bytes()
    now, before = (read_parquet(folder.run_path(config, name)).to_pylist() for folder in (again, there))
    assert len(now) == len(before)
    for row, old in zip(now, before, strict=True):
        rest = {key: value for key, value in old.items() if key not in METRICS}
        assert {key: row[key] for key in rest} == rest
    # Not byte for byte: on a processor of another kind sums are rounded in another order, and a text may turn there.
    for metric in METRICS:
        pairs = [(row[metric], old[metric]) for row, old in zip(now, before, strict=True) if old.get(metric)]
        if pairs:
            apart = np.abs(np.array([row for row, _ in pairs]) - np.array([old for _, old in pairs]))
            assert (apart < 1e-3).mean() > (0.999 if metric in ("loss", "accuracy") else 0.98), metric
