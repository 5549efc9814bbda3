from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.errors import DataError
from gptdynamics.parsing import parse_json, parse_object, parse_toml, replace_surrogates
from gptdynamics.tasks import get_task, load_examples
from gptdynamics.tasks.loading import replaced_note

ROW = {"sentence": "a fine film", "label": "positive"}
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_json_writes_is_read_as_it_was(value: object) -> None:
    text = json.dumps(value)
    assert parse_json(text, "file") == value
    assert parse_json(b"\xef\xbb\xbf" + text.encode(), "file") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ("[" * 1500 + "]" * 1500, "nested deeper than 100"),
        ('{"a": ' + "9" * 5000 + "}", "integer of more than 400 digits"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ("[1, 2]", "not a JSON object, but a list"),
        ("{", "not a JSON object"),
        ("", "not a JSON object"),
    ],
)
def test_what_is_no_sound_json_is_one_line_that_says_where(text: str | bytes, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_object(text, "rows.jsonl:7")
    assert str(caught.value).startswith("rows.jsonl:7: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a = " + "[" * 1500 + "]" * 1500, "a = " + "9" * 5000, "a = 1\na = 2", b"a = '\xff'"])
def test_what_is_no_sound_toml_is_one_line_that_says_where(text: str | bytes) -> None:
    with pytest.raises(DataError, match=r"^plan\.toml: [^\n]*$"):
        parse_toml(text, "plan.toml")


def test_halves_of_surrogate_pairs_are_replaced_and_counted() -> None:
    assert replace_surrogates({"a": ["x\ud83d", "\ude00\ud83d"], "b": 1}) == (
        {"a": ["x\ufffd", "\ufffd\ufffd"], "b": 1},
        3,
    )
    assert replace_surrogates("🙂") == ("🙂", 0)


def write_rows(folder: Path, train: bytes) -> Path:
    (folder / "sst2").mkdir()
    for name, content in (("train", train), ("eval", (json.dumps(ROW) + "\n").encode())):
        (folder / "sst2" / f"{name}.jsonl").write_bytes(content)
    return folder


def test_blank_lines_a_byte_order_mark_and_cut_emoji_are_no_errors(tmp_path: Path) -> None:
    cut = '{"sentence": "so good \\ud83d", "label": "positive"}'
    lines = ["\ufeff" + json.dumps(ROW), "", "   ", cut, ""]
    data = write_rows(tmp_path, "\r\n".join(lines).encode())
    first, second = load_examples(get_task("sst2"), "pool", 2, data)
    assert first.prompt == "Review: a fine film\nSentiment:"
    assert second.prompt == "Review: so good \ufffd\nSentiment:"
    note = replaced_note("sst2", [first, second])
    assert note is not None
    assert "sst2" in note
    assert replaced_note("sst2", [first]) is None


def test_a_row_that_is_no_json_is_named_by_file_and_line(tmp_path: Path) -> None:
    data = write_rows(tmp_path, f'{json.dumps(ROW)}\n\n{{"sentence": 1, "sentence": 2}}\n'.encode())
    with pytest.raises(DataError, match=r"train\.jsonl:3: 'sentence' occurs twice in one object"):
        load_examples(get_task("sst2"), "pool", 1, data)
