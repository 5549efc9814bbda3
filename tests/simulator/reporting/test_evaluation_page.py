"""The report page: its data, its table, and that nothing from a dataset becomes markup."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.errors import DataError
from simulator.reporting.colours import (
    DASH_ARRAYS,
    METHOD_COLOURS,
    METHOD_DASHES,
    TRUTH,
    dark_colour,
    method_colour,
    method_dash,
)
from simulator.reporting.evaluation_page import Curve, write_report
from tests.accessibility import page_faults

EVIL = "</script><script>alert(1)</script><!-- <script> & ]]> \u2028\u2029"
RIGHT_TO_LEFT = "هذا النص من اليمين إلى اليسار 😀"
UNDEFINED = "\u2013"
VOID = {"meta", "input", "br", "wbr", "line"}


class Page(HTMLParser):
    """Reads a page: elements, the text of each script, the texts of cells, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.rows: list[list[str]] = []
        self.bold: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
            return
        if "style" in self.open:
            return
        self.words += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
            if "strong" in self.open:
                self.bold.append(data)

    @property
    def data(self) -> dict:
        [text] = [text for attrs, text in self.scripts if attrs.get("type") == "application/json"]
        return json.loads(text)

    def table(self) -> dict[str, list[str]]:
        """Words of the first line of a row's heading -> the row's cells."""
        cleaned = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return {row[0].split(" ")[0]: row[1:] for row in cleaned if len(row) == 8}


def curve(run: str = "run-4", test_id: int = 0, error: float = 0.1, **changes: object) -> Curve:
    truth = [0.7, 0.6, 0.5]
    fields: dict = {
        "run": run,
        "test_id": test_id,
        "task": "sst2",
        "prompt": "a film",
        "target": "good",
        "step": [0, 1, 2],
        "truth": truth,
        "predicted": {"mean_curve": [0.7, 0.65, 0.55], "memory": [value + error for value in truth]},
    }
    return Curve(**(fields | changes))


def row(method: str, **figures: object) -> dict[str, object]:
    names = ("mse", "mse_std", "mae", "mae_std", "spearman", "spearman_std", "skill", "coverage")
    base = {"method": method, "model": None, "config": "sst2_nano", "metric": "loss", "split": "test"}
    return base | dict.fromkeys(names) | {"runs": 5, "examples": 200} | figures


def write(path: Path, curves: list[Curve], **changes: object) -> tuple[str, Page]:
    arguments: dict = {"config": "sst2_nano", "metric": "loss", "rows": [], "facts": {}}
    write_report(path, curves=curves, **(arguments | changes))
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    text, page = write(tmp_path / "r.html", [curve()], rows=[row("memory", mse=0.1)], facts={"date": "today"})
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    assert [tag for tag, _ in page.tags].count("h1") == 1
    for tag, attrs in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert not {"src", "href", "srcset", "action"} & attrs.keys(), (tag, attrs)
    [policy] = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv")]
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not re.search(r'src="http|<link href="http|@import|url\(http', text.split("<script>")[0])
    assert len(page.scripts) == 3
    assert "plotly.js" in page.scripts[1][1][:200]
    assert "showSendToCloud: false" in page.scripts[2][1]
    assert "noscript" in [tag for tag, _ in page.tags]


def test_controls_and_pictures_have_names(tmp_path: Path) -> None:
    _, page = write(tmp_path / "r.html", [curve()], rows=[row("memory", mse=0.1)], facts={"date": "today"})
    assert page_faults(tmp_path / "r.html") == []
    assert [a["data-method"] for t, a in page.tags if t == "input" and "data-method" in a] == ["0", "1"]


def test_texts_never_become_markup(tmp_path: Path) -> None:
    _, plain = write(tmp_path / "plain.html", [curve()], rows=[row("memory")], facts={"a": "b"})
    evil_curve = curve(run=EVIL, prompt=EVIL, target=RIGHT_TO_LEFT, task=EVIL, predicted={EVIL: [1, 2, 3]})
    text, page = write(
        tmp_path / "evil.html",
        [evil_curve],
        config=EVIL,
        metric=EVIL,
        rows=[row(EVIL, model=EVIL, split=EVIL)],
        facts={EVIL: EVIL},
    )
    assert len(page.scripts) == len(plain.scripts) == 3
    assert page.open == []
    [example] = page.data["examples"]
    assert example == {"task": EVIL, "id": 0, "prompt": EVIL, "target": RIGHT_TO_LEFT}
    assert page.data["runs"] == [EVIL]
    assert page.data["axis"] == EVIL
    assert EVIL not in text
    block = page.scripts[0][1]
    assert not set(block) & set("<>&\u2028\u2029")
    assert page.words.count("alert(1)") >= 5


def test_lone_surrogates_and_missing_texts(tmp_path: Path) -> None:
    curves = [curve(prompt="\ud83d"), curve(test_id=1, prompt=None, target=None)]
    _, page = write(tmp_path / "r.html", curves, facts={"x": "\ud83d"})
    assert [example["prompt"] for example in page.data["examples"]] == ["\ud83d", None]


def test_values_are_rounded_and_gaps_are_null(tmp_path: Path) -> None:
    predicted = {
        "memory": np.array([math.nan, math.inf, 123456.789]),
        "other": np.float32([1, -math.inf, 0.1]),
    }
    given = curve(truth=np.array([0.123456789, 2.0, 1e-9]), step=np.arange(3), predicted=predicted)
    _, page = write(tmp_path / "r.html", [given])
    [entry] = page.data["curves"]
    assert entry["truth"] == [0.12346, 2, 1e-9]
    assert entry["predicted"] == [[None, None, 123460], [1, None, 0.1]]
    assert page.data["steps"] == [[0, 1, 2]]
    assert not re.search(r"NaN|Infinity", page.scripts[0][1])


def test_runs_examples_and_steps_stand_once(tmp_path: Path) -> None:
    _, page = write(tmp_path / "r.html", [curve(run=run, test_id=i) for run in "ab" for i in range(3)])
    assert page.data["runs"] == ["a", "b"]
    assert len(page.data["examples"]) == 3
    assert len(page.data["steps"]) == 1
    assert [(c["run"], c["example"]) for c in page.data["curves"]] == [(r, e) for r in (0, 1) for e in range(3)]


def test_a_method_that_some_curves_lack(tmp_path: Path) -> None:
    curves = [curve(predicted={"memory": [1, 1, 1]}), curve(test_id=1, predicted={"markov_1": [2, 2, 2]})]
    _, page = write(tmp_path / "r.html", curves)
    assert [m["name"] for m in page.data["methods"]] == ["memory", "markov_1"]
    assert [c["predicted"] for c in page.data["curves"]] == [[[1, 1, 1], None], [None, [2, 2, 2]]]
    assert [panel["curve"] for panel in page.data["panels"]] == [1]


def test_panels_spread_over_the_error_of_the_last_method(tmp_path: Path) -> None:
    errors = [0.05, 1.0, 0.2, 0.8, 0.4, 0.6, 0.3, 0.9, 0.7, 0.5, 0.1]
    curves = [curve(test_id=i, error=error) for i, error in enumerate(errors)]
    _, page = write(tmp_path / "r.html", curves)
    panels = page.data["panels"]
    assert [panel["mae"] for panel in panels] == [0.05, 0.2, 0.4, 0.6, 0.8, 1]
    assert [errors[panel["curve"]] for panel in panels] == [0.05, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert panels[0]["place"] == "smallest error"
    assert panels[1]["place"] == "20% have a smaller error"
    assert panels[-1]["place"] == "largest error"


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7])
def test_panels_of_few_curves_are_distinct(tmp_path: Path, count: int) -> None:
    _, page = write(tmp_path / "r.html", [curve(test_id=i, error=i / 10) for i in range(count)])
    chosen = [panel["curve"] for panel in page.data["panels"]]
    assert len(chosen) == len(set(chosen)) == min(count, 6)


def test_panels_without_any_prediction(tmp_path: Path) -> None:
    _, page = write(tmp_path / "r.html", [curve(test_id=i, predicted={}) for i in range(20)])
    assert len(page.data["panels"]) == 6
    assert page.data["methods"] == []


@pytest.mark.parametrize(
    ("metric", "axis"),
    [
        ("loss", "loss (nats per token)"),
        ("bleu", "BLEU (0-100)"),
        ("rougeL", "ROUGE-L (0-1)"),
        ("accuracy", "accuracy (0 or 1)"),
        ("entropy", "entropy"),
    ],
)
def test_axis_titles(tmp_path: Path, metric: str, axis: str) -> None:
    _, page = write(tmp_path / "r.html", [curve()], metric=metric)
    assert page.data["axis"] == axis


def test_table_figures(tmp_path: Path) -> None:
    figures = {
        "mse": 0.02541,
        "mse_std": 0.04,
        "mae": 0.11,
        "mae_std": 0.07,
        "spearman": 0.88,
        "spearman_std": 0.04,
    }
    rows = [
        row("persistence", mse=0.4123, mae=0.5, skill=-1.9, spearman=0.3),
        row("mean_curve", mse=0.14, mae=0.27, skill=-0.0001, coverage=0.97),
        row("simfluence_linear", mse=24031.234, mae=math.inf, skill=math.nan, spearman=np.float32(0.25)),
        row("memory", **figures, skill=0.82, coverage=0.893, model="/models/m"),
    ]
    _, page = write(tmp_path / "r.html", [curve()], rows=rows)
    table = page.table()
    assert table["persistence"] == ["\u22121.900", "0.4123", "0.500", "0.300", UNDEFINED, "5", "200"]
    assert table["mean_curve"] == ["0.000", "0.1400", "0.270", UNDEFINED, "97.0%", "5", "200"]
    assert table["simfluence_linear"] == [UNDEFINED, "24031", UNDEFINED, "0.250", UNDEFINED, "5", "200"]
    assert table["memory"] == [
        "0.820",
        "0.0254 ± 0.0400",
        "0.110 ± 0.070",
        "0.880 ± 0.040",
        "89.3%",
        "5",
        "200",
    ]
    assert page.bold == ["0.820", "0.0254", "0.110", "0.880", "89.3%"]
    assert "/models/m" in page.words
    assert ("span", {"class": "undefined", "title": "undefined"}) in page.tags
    assert "lower is better" in page.words.lower() and "higher is better" in page.words.lower()


def test_best_is_marked_within_a_split(tmp_path: Path) -> None:
    rows = [
        row("mean_curve", mse=0.2),
        row("memory", mse=0.1),
        row("mean_curve", mse=0.03, split="test_unseen"),
        row("memory", mse=0.05, split="test_unseen"),
    ]
    _, page = write(tmp_path / "r.html", [curve()], rows=rows)
    assert page.bold == ["0.100", "0.0300"]
    assert "split test_unseen" in page.words


def test_equal_or_single_figures_are_not_best(tmp_path: Path) -> None:
    rows = [row("mean_curve", mse=0.2, skill=0.0), row("memory", mse=0.2)]
    _, page = write(tmp_path / "r.html", [curve()], rows=rows)
    assert page.bold == []


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([], "no curves"),
        (
            [curve(), curve(run="run-9", test_id=7, truth=[1.0])],
            r"run 'run-9'.*example 7.*truth has 1 .* 3 steps",
        ),
        (
            [curve(test_id=3, predicted={"memory": [1.0, 2.0]})],
            r"run 'run-4'.*3 .*'memory' predicts 2 .* 3 steps",
        ),
        ([curve(step=[], truth=[], predicted={})], "no steps"),
        ([curve(), curve()], r"run 'run-4', test example 0 of task 'sst2': given twice"),
    ],
)
def test_curves_that_do_not_fit(tmp_path: Path, curves: list[Curve], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "r.html", curves)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"mse": 0.1}, "names no method"), (row("memory", mse="low"), "'memory'.*mse is 'low'")],
)
def test_rows_that_do_not_fit(tmp_path: Path, bad: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "r.html", [curve()], rows=[bad])


def test_write_replaces_whole_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "r.html"
    first, _ = write(path, [curve()])
    second, _ = write(path, [curve()])
    assert first == second
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DataError, match="disk full"):
        write(path, [curve(test_id=5)])
    assert path.read_text(encoding="utf-8") == first
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]


def test_colours() -> None:
    assert len(set(METHOD_COLOURS.values())) == len(METHOD_COLOURS)
    assert METHOD_DASHES.keys() <= METHOD_COLOURS.keys()
    for method in [*METHOD_COLOURS, "tracin_cp_20", "grad_dot", "", "\ud83d"]:
        assert re.fullmatch("#[0-9A-F]{6}", method_colour(method))
        assert method_colour(method) == method_colour(method)
        assert method_dash(method) in DASH_ARRAYS
    assert method_colour("memory") == METHOD_COLOURS["memory"]
    assert method_colour("tracin_cp_20") not in METHOD_COLOURS.values()


def test_every_line_can_be_seen_on_a_dark_page_and_two_do_not_become_one() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        return float(np.dot([each**2.2 for each in parts], [0.2126, 0.7152, 0.0722]))

    dark = {method: dark_colour(method) for method in (*METHOD_COLOURS, TRUTH, "tracin_cp_20")}
    for colour in dark.values():
        assert (light(colour) + 0.05) / (light("#1D2125") + 0.05) > 3
    assert len(set(dark.values())) == len(dark)
    assert dark["mean_curve"] == method_colour("mean_curve") and dark[TRUTH] == "#FFFFFF"


def test_far_baselines_are_listed_but_not_drawn_at_first(tmp_path: Path) -> None:
    text, _ = write(
        tmp_path / "r.html",
        [replace(curve(), predicted={name: [1.0, 2.0, 3.0] for name in ("mean_curve", "grad_dot", "memory_gradient")})],
    )
    boxes = [attrs for tag, attrs in Page(text).tags if tag == "input" and "data-method" in attrs]
    assert ["checked" in box for box in boxes] == [True, False, True]
