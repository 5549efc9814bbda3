"""The pages: what they print runs, what they point to exists, and their sentences are short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import simulator

ROOT = Path(__file__).resolve().parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, CONTRIBUTING, *DOCS]
# An experiment writes its page beside its record.
GENERATED = [page for page in DOCS if page.with_suffix(".json").is_file()]
BY_HAND = [page for page in PAGES if page not in GENERATED]
LONGEST_README, LONGEST_PAGE = 120, 200
LONGEST_SENTENCE, LONG_SENTENCES = 35, 0.02

FENCE = re.compile(r"^([ \t]*)(```+)[ \t]*(\w*)[^\n]*\n(.*?)^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
# Headings that the site's build puts in.
FILLED = re.compile(r"^(::: |<!-- commands )", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +\{ *#([\w-]+) *\})?$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its fenced blocks and comments; every line keeps its number."""

    def blank(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n")

    return COMMENT.sub(blank, FENCE.sub(blank, page.read_text(encoding="utf-8")))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The kind and the text of each fenced block, without the indentation of the list or tab that it stands in."""
    for indent, _, kind, text in FENCE.findall(page.read_text(encoding="utf-8")):
        yield kind, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def programs(page: Path) -> list[tuple[str, str]]:
    """What a reader runs in an environment with nothing but the package: not what makes that environment."""
    return [
        (kind, text)
        for kind, text in blocks(page)
        if kind in ("bash", "python") and not text.startswith(("make ", "pip ", "git ", "python -m venv"))
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and Python-Markdown make them."""
    found = set()
    for title, own in HEADING.findall(prose(page)):
        words = re.sub(r"[^\w\- ]", "", LINK.sub(r"\2", title).replace("`", "").lower()).strip()
        found |= {own} if own else {words.replace(" ", "-"), re.sub(r"[-\s]+", "-", words)}
    return found | set(re.findall(r'<\w+ id="([\w-]+)"', prose(page)))


def broken_links(page: Path) -> Iterator[str]:
    """Where a page points to something that is not there."""
    for _, _, target in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            yield f"{name(page)}: {target}: there is no such file"
        elif anchor and there.suffix == ".md" and not FILLED.search(there.read_text()) and anchor not in anchors(there):
            yield f"{name(page)}: {target}: there is no such heading"


def sentences(page: Path) -> Iterator[tuple[int, str]]:
    """The sentences of paragraphs and list items, each with the line that its paragraph begins at; tables are not."""
    number, paragraph = 1, ""
    for at, line in enumerate([*prose(page).splitlines(), ""], start=1):
        text = line.strip()
        item = re.match(r"(?:[*+-]|\d+\.) +(.*)", text)
        ends = not text or text.startswith(("|", "#", "!!!", "???", "===", "---", "<", "![")) or item is not None
        if ends and paragraph:
            for sentence in re.split(r"(?<=[.!?:;])[\"')*_]*\s+(?=[\"'(*_`\[A-Z])", paragraph):
                yield number, sentence
            paragraph = ""
        if ends:
            number, paragraph = at, item[1] if item else ""
        else:
            number, paragraph = (number, f"{paragraph} {text}") if paragraph else (at, text)


def length(sentence: str) -> int:
    """How many words a reader reads: a link's address is none, code is one."""
    return len(re.sub(r"`[^`]*`", "code", LINK.sub(r"\2", sentence)).split())


def test_the_headline_is_what_the_bundled_runs_give() -> None:
    model = simulator.train("gptdynamics", "sst2_smollm2", bands=False).model
    scores = simulator.evaluate("gptdynamics", "sst2_smollm2", models=model, baselines=["mean_curve"])
    skill = {row.method: row.skill for row in scores.rows}
    (row,) = re.findall(r"^\| \*\*tangent\*\*.*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    printed = float(row.split("|")[2].strip(" *"))
    assert skill["mean_curve"] == 0 and skill["tangent"] is not None
    assert abs(skill["tangent"] - printed) <= 0.02


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pictures_have_words(page: Path) -> None:
    text = prose(page)
    without = [target for picture, words, target in LINK.findall(text) if picture and len(words.split()) < 3]
    assert without == [] and not re.search(r"<img(?![^>]*\salt=\"\w)", text)


@pytest.mark.parametrize("page", BY_HAND, ids=name)
def test_pages_are_short(page: Path) -> None:
    lines = len(page.read_text(encoding="utf-8").splitlines())
    assert lines <= (LONGEST_README if page == README else LONGEST_PAGE)


def test_few_sentences_are_long() -> None:
    every = [(page, *found) for page in BY_HAND for found in sentences(page)]
    long = [
        f"{name(page)}:{line}: {length(text)} words: {text[:80]}"
        for page, line, text in every
        if length(text) > LONGEST_SENTENCE
    ]
    assert len(long) < LONG_SENTENCES * len(every), "\n".join([f"{len(long)} of {len(every)} sentences:", *long])


def test_words_are_spelt_right() -> None:
    spelling = [sys.executable, "-m", "codespell_lib", *map(str, PAGES)]
    done = subprocess.run(spelling, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=name)
def test_what_a_page_prints_runs(page: Path, tmp_path: Path) -> None:
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    for kind, text in programs(page):
        words = [sys.executable, "-c", text] if kind == "python" else ["bash", "-ec", text]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name(page)}\n{text}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page that the checks below look at."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# A `title` of two\n")
    (tmp_path / "a.md").write_text(
        "# Page\n\nOne two three. Four `five six`\n[seven](b.md#a-title-of-two)!\n\n* Eight (nine): ten.\n\n"
        "| a. B | c |\n\n```bash\nmake x\n```\n\n1. x\n\n    ```python\n    if 1:\n        print(2)\n    ```\n\n"
        "[no](c.md) [none](b.md#b) [here](#page) ![x](b.md)\n"
    )
    return tmp_path / "a.md"


def test_the_checks_read_a_page_right(written: Path) -> None:
    assert [text for _, text in sentences(written)][:4] == [
        "One two three.", "Four `five six` [seven](b.md#a-title-of-two)!", "Eight (nine): ten.", "x",
    ]  # fmt: skip
    assert [length(text) for _, text in sentences(written)][:3] == [3, 3, 3]
    assert [line for line, _ in sentences(written)][:4] == [3, 3, 6, 14]
    assert programs(written) == [("python", "if 1:\n    print(2)\n")]
    assert list(broken_links(written)) == [
        "a.md: c.md: there is no such file", "a.md: b.md#b: there is no such heading",
    ]  # fmt: skip
    with pytest.raises(AssertionError):
        test_pictures_have_words(written)
