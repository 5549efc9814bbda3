"""The check of pages finds each kind of fault, and nothing in a page without faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.accessibility import page_faults

PAGE = """<!DOCTYPE html><html lang="en"><head><title>Page</title><style>a { content: "`" }</style></head><body>
<h1>Page</h1><h2 id="end">End</h2><a href="#end">To the end</a><p>Words, <code>`code`</code></p>
<div role="img" aria-label="A line that falls"></div><svg aria-hidden="true"></svg>
<label for="run">Run</label><select id="run"></select><label><input type="checkbox">whole</label><button>Undo</button>
<table><caption>Runs</caption><tr><th scope="col">run</th></tr></table><script>const a = `b`;</script></body></html>"""


def test_a_page_without_faults_has_none(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    assert page_faults(tmp_path / "page.html") == []


@pytest.mark.parametrize(
    ("whole", "broken", "fault"),
    [
        (' lang="en"', "", "no language"),
        ("<title>Page", "<title> ", "no title"),
        ("<h1>Page</h1>", "", "0 first headings"),
        ('id="run"', 'id="end"', "id given 2 times: end"),
        ('href="#end"', 'href="#start"', "no element has the id start"),
        ('aria-label="A line that falls"', 'aria-label=" "', "picture without words"),
        ('<svg aria-hidden="true">', "<svg>", "picture without words"),
        ("Words", '<img src="a.svg">', "picture without words"),
        (">Run</label>", "></label>", "control without a name: <select"),
        (">whole<", "><", "control without a name: <input"),
        (">Undo<", "><", "control without a name: <button"),
        (' scope="col"', "", "heading of no row or column"),
        ("Words", "`Words`", "backtick: `Words`"),
        ("<caption>Runs", "<caption>End", "title given 2 times: End"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, whole: str, broken: str, fault: str) -> None:
    assert whole in PAGE
    (tmp_path / "page.html").write_text(PAGE.replace(whole, broken))
    assert any(each.startswith(fault) for each in page_faults(tmp_path / "page.html"))
