"""The site of docs/: its pages of commands and of Python name everything, and it builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import gptdynamics
import gptdynamics.cli
import simulator
import simulator.cli
from tools.site.hooks import describe_program, on_config, on_page_markdown, on_post_page

ROOT = Path(__file__).resolve().parents[2]


def test_the_python_page_has_every_public_name_once() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    public = [f"{package.__name__}.{name}" for package in (gptdynamics, simulator) for name in package.__all__]
    assert sorted(named) == sorted(public)


@pytest.mark.parametrize("program", ["gptdynamics", "gptfluence"])
def test_the_commands_page_has_every_command_with_its_options(program: str) -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    markdown = on_page_markdown(page)
    commands = gptdynamics.cli.COMMANDS if program == "gptdynamics" else simulator.cli.COMMANDS
    names = [command.__name__.rstrip("_").replace("_", "-") for command in commands]
    assert re.findall(rf"^### {program} (\S+)$", markdown, re.MULTILINE) == names
    # Names in angle brackets are code, or a browser takes them for tags.
    assert "<" not in re.sub(r"`[^`]*`", "", markdown)


def test_a_command_is_described_with_what_its_options_take_and_their_defaults() -> None:
    (train,) = (text for text in "\n".join(describe_program("gptfluence")).split("### ") if "gptfluence train" in text)
    assert "gptfluence train DATASET [OPTIONS]" in train
    rows = {
        cells[1].strip(): cells
        for cells in (re.split(r"(?<!\\)\|", line) for line in train.splitlines())
        if len(cells) == 5
    }
    assert rows["`--config STR...`"][3].strip() == "must be given"
    assert rows["`--metric STR...`"][3].strip() == "loss"
    assert "`--no-bands`" in rows["`--bands`, `--no-bands`"][1]
    assert "<task>_<size>" in rows["`--config STR...`"][2]
    assert "`--json FILE`" in rows and "`--verbose`" not in rows


def test_pages_of_experiments_follow_the_first_page_of_results(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name, title in (("index", "Results"), ("a", "Unseen rows"), ("b", "Cost")):
        (tmp_path / "results" / f"{name}.md").write_text(f"# {title}\n")
    nav: list[dict[str, list[str]]] = [{"Start": ["index.md"]}, {"Results": ["results/index.md"]}]
    config = SimpleNamespace(nav=nav, docs_dir=str(tmp_path))
    assert on_config(config).nav[1]["Results"] == ["results/index.md", "results/b.md", "results/a.md"]


def test_the_menu_and_the_search_have_names_of_their_own() -> None:
    contents = '<nav class="md-nav md-nav--secondary" aria-label="Table of contents">'
    page = on_post_page(f'<div data-md-component="search" role="dialog"></div>{contents}{contents}')
    assert 'role="dialog" aria-label="Search"' in page
    assert page.count("Table of contents") == 1 == page.count("Contents of this page")
    assert on_post_page(contents) == contents


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference" / "python.html").read_text(encoding="utf-8")
    # Of a settings dataclass, by the extension of griffe.
    assert "counterfactual_every" in page
    for html in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', html.read_text(encoding="utf-8")
        )
        assert loaded == [], html
