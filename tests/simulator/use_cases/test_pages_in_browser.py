"""Every page that a command writes, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simulator.cli import app
from tests.browser import browser_faults, chromium
from tests.simulator.use_cases.conftest import CONFIG

pytestmark = pytest.mark.slow

SMALL = "--workers 1".split()
PAGES = {
    "influence.html": ("influence DATA --model MODEL --test-ids 0,3 --output OUT/influence.html", ()),
    "report.html": (f"report DATA --config {CONFIG} --models MODEL --output OUT/report.html", ()),
    "explorer.html": ("report DATA --interactive --models MODEL --output OUT/explorer.html", ()),
    "no-texts.html": ("report DATA --interactive --no-texts --models MODEL --output OUT/no-texts.html", ()),
    "validate.html": ("validate DATA --model MODEL --output OUT --each 3 --test-examples 4 --measured 3", SMALL),
    "select.html": ("select DATA --model MODEL --output OUT --count 4 --seeds 2 --random 3", SMALL),
    "mislabel.html": (
        "mislabel mini_sentiment --base-model BASE --rows 16 --batch-size 4 --epochs 1 --runs 6 --flip 0.4 "
        "--test-examples 10 --retrainings 2 --output OUT",
        SMALL,
    ),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_faults_in_any_window_and_theme(
    browser: Any,
    page: str,
    collected: str,
    memory: str,
    tiny_model_folder: Path,
    quick_markov: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Datasets name the folder of their base model without its path.
    monkeypatch.chdir(tiny_model_folder.parent)
    words = {"DATA": collected, "MODEL": memory, "BASE": str(tiny_model_folder), "OUT": str(tmp_path)}
    command, more = PAGES[page]
    arguments = [
        word.replace("OUT", words["OUT"]) if "OUT" in word else words.get(word, word) for word in command.split()
    ]
    done = CliRunner().invoke(app, [*arguments, *more])
    assert done.exit_code == 0, done.output
    assert browser_faults(browser, (tmp_path / page).as_uri()) == []
