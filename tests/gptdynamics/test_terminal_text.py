"""Text from outside never commands the terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from gptdynamics import console
from gptdynamics.commands.running import run_app
from gptdynamics.errors import DataError
from gptdynamics.terminal_text import cut_text, safe_text

NASTY = "\x1b]0;owned\x07 \x1b[2J \x9b31m \u202egnp.exe \u2066x\u2069 \r\x08 \ud800 \U000e0041 [red]markup[/red] [link=http://a]b[/link]"


def harmless(shown: str) -> bool:
    return not any(unicodedata.category(each) in ("Cc", "Cf", "Cs") and each != "\n" for each in shown)


def test_control_characters_are_shown_as_python_writes_them() -> None:
    assert safe_text("a\x1b[31mb\x07\x9b\u202e\r\n\tc") == "a\\x1b[31mb\\a\\x9b\\u202e\\r\\n\tc"
    assert safe_text("a\nb\x00", one_line=False) == "a\nb\\x00"
    assert safe_text("שלום 👩\u200d🚀 naïve 漢字") == "שלום 👩\u200d🚀 naïve 漢字"


@given(st.text())
def test_no_text_has_unsafe_characters_left_and_plain_ones_stay(text: str) -> None:
    shown = safe_text(text)
    assert all(
        unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or each in "\t\u200c\u200d"
        for each in shown
    )
    if text.isascii() and text.isprintable():
        assert shown == text


def test_messages_tables_and_bars_are_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(f"out {NASTY}")
    console.say_error(f"error: {NASTY}")
    table = Table(title=NASTY, caption=NASTY)
    table.add_column(NASTY)
    table.add_row(NASTY)
    table.add_row(Text(NASTY))
    console.show(table)
    with console.progress_bar() as progress:
        progress.add_task(NASTY, total=1)
    out, err = capsys.readouterr()
    assert harmless(out.replace("\t", "")) and harmless(err.replace("\t", ""))
    assert "[red]markup[/red]" in out and "\\x1b]0;owned\\a" in out and "\\u202e" in err


@pytest.mark.parametrize("name", ["\x1b[31mred", "bell\x07", "\u202etxt.exe", "line\nbreak"])
def test_names_of_folders_and_reasons_of_failures_reach_the_terminal_escaped(
    command,
    tmp_path: Path,
    collected_once: Path,
    name: str,  # type: ignore[no-untyped-def]
) -> None:
    folder = tmp_path / name
    (folder / "manifests").mkdir(parents=True)
    manifest = json.loads((collected_once / "manifests/rte_tiny.json").read_text(encoding="utf-8"))
    (folder / "manifests/rte_tiny.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "sidecar/rte_tiny").mkdir(parents=True)
    (folder / "sidecar/rte_tiny/0000.failed.json").write_text(
        json.dumps({"run": "0000", "reason": NASTY}), encoding="utf-8"
    )
    (folder / "data" / name).mkdir(parents=True)
    for arguments in (
        ["status", folder],
        ["verify", folder],
        ["export", folder, "--out", tmp_path / "release"],
        ["status", folder / "x"],
    ):
        _, out, err = command(*arguments)
        assert harmless(out) and harmless(err), arguments


def test_an_error_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(**_: object) -> None:
        raise DataError(f"folder\n{NASTY}: broken")

    with pytest.raises(SystemExit) as stop:
        run_app(fail, [], "gptdynamics")  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert stop.value.code == 1 and err.count("\n") == 1 and harmless(err) and err.startswith("error: folder\\n")


def numbers_in(text: str) -> list[str]:
    return re.findall(r"-?\d[\d.e+-]*", text)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_table_folds_names_and_never_cuts_numbers(width: int) -> None:
    table = Table()
    table.add_column("method", no_wrap=True)
    for heading in ("MSE", "a long heading of a column", "skill"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("simfluence_multiplicative_adamw", "123457 (1.2e+06)", "-2.345", "-23457")
    table.add_row("memory", "0.077", "0.1", "0.82")
    shown = console.table_text(table, width)
    assert "…" not in shown
    numbers = ["123457", "1.2e+06", "-2.345", "-23457", "0.077", "0.1", "0.82"]
    # In a narrow terminal further columns stand below, each table of them with the names.
    assert sorted(numbers_in(shown)) == sorted(numbers)
    assert shown.count("memory") == 1 + shown.count("(further columns)")
    if width >= 60:
        assert max(map(len, shown.splitlines())) <= width


def test_long_texts_lose_their_middle() -> None:
    assert cut_text("a short\n one") == "a short one"
    long = "Review: " + "very " * 40 + "good\nSentiment: positive"
    cut = cut_text(long, 40)
    assert (
        len(cut) == 40 and cut.startswith("Review: very") and cut.endswith("Sentiment: positive"[-14:]) and "..." in cut
    )
