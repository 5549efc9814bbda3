"""Which text tokenizer scores the generated text of a config, and what its manifest says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.recorded import Recorded
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from gptdynamics.measurement import TestSet
from gptdynamics.measurement.test_set import text_tokenizers
from gptdynamics.models.base_model import load_base_model
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.tasks import add_task_file
from gptdynamics.tasks.declared import declared_task
from gptdynamics.tasks.user_tasks import VARIABLE

CHINESE = [
    f"来自{city}的人喜欢{food}。" for city in ("北京", "上海", "广州", "成都") for food in ("苹果", "米饭", "西瓜")
]
TASK = '''
from gptdynamics.tasks import Task


class Chinese(Task):
    """A sentence of a fact, in Chinese."""

    name = "facts_zh"
    fields = {"fact": str, "text": str}
    plain = "事实 {fact}\\n句子"

    def target(self, row):
        return f" {row['text']}"
'''


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Task files that a test names, the next does not know."""
    monkeypatch.setenv(VARIABLE, "")
    yield


OWN = {name: declared_task(name, ()) for name in ("zh_own", "en_own")}


def examples_of(task: str, texts: list[str]) -> list[Example]:
    return [Example(at, "Say:", f" {text}", (text,), task) for at, text in enumerate(texts)]


def test_each_task_has_its_own_chosen_by_the_setting_the_task_or_the_references() -> None:
    examples = [*examples_of("zh_own", CHINESE), *examples_of("en_own", ["Red cats.", "Blue cats."])]
    assert text_tokenizers(examples, "auto", OWN) == {"zh_own": "zh", "en_own": "13a"}
    assert text_tokenizers(examples, "char", OWN) == {"zh_own": "char", "en_own": "char"}
    # What a task says goes before what its references look like.
    triples = [replace(each, task="mini_triples") for each in examples]
    assert text_tokenizers(triples, "auto") == {"mini_triples": "13a"}


@pytest.mark.parametrize("setting", ["auto", "13a"])
def test_generated_text_is_scored_by_task(tiny_model_folder: Path, setting: str) -> None:
    texts = ["来自北京的人喜欢苹果", "Red cats sleep."]
    examples = [*examples_of("zh_own", texts[:1]), replace(examples_of("en_own", texts[1:])[0], id=1)]
    settings = RunSettings("mini_triples_x", 1e-3, text_tokenizer=setting)
    base = load_base_model(str(tiny_model_folder))
    test_set = TestSet(examples, base, settings, {"zh_own": 4, "en_own": 4}, tasks=OWN)
    said = ["来自上海的人喜欢苹果", "Red dogs sleep."]
    test_set.generator = SimpleNamespace(sample=lambda model, seeds: said)
    scores = test_set.generate(base.model, [0])
    tokenizers = ("zh", "13a") if setting == "auto" else ("13a", "13a")
    wanted = [
        sacrebleu.sentence_bleu(text, [reference], tokenize=name, use_effective_order=True).score
        for text, reference, name in zip(said, texts, tokenizers, strict=True)
    ]
    np.testing.assert_allclose(scores["bleu"], wanted, atol=1e-4)
    np.testing.assert_allclose(scores["rougeL"], [0.8 if setting == "auto" else 0.0, 2 / 3], atol=1e-6)


def test_a_chinese_task_is_collected_resumed_and_verified(tiny_model_folder: Path, tmp_path: Path) -> None:
    file, rows = tmp_path / "task.py", tmp_path / "rows" / "facts_zh"
    file.write_text(TASK, encoding="utf-8")
    rows.mkdir(parents=True)
    for split in ("train", "eval"):
        lines = [json.dumps({"fact": text[2:4], "text": text}, ensure_ascii=False) for text in CHINESE]
        (rows / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    add_task_file(file)
    settings = RunSettings(
        "facts_zh_tiny", 1e-3, pool_size=8, subset=4, batch_size=2, epochs=1, test_examples=3,
        base_model=str(tiny_model_folder), max_length=64,
    )  # fmt: skip

    def collected(how: RunSettings, runs: int) -> list[str]:
        plan = Plan("own", (PlanEntry(how, runs),))
        return collect(CollectSettings(plan, tmp_path / "out", tmp_path / "rows", workers=1, device="cpu")).done

    assert collected(settings, 1) == ["facts_zh_tiny/0000"]
    path = DatasetFolder(tmp_path / "out").manifest_path("facts_zh_tiny")
    manifest = json.loads(path.read_text())
    assert manifest["settings"]["text_tokenizer"] == "auto"
    assert verify(tmp_path / "out").faults == []
    assert collected(settings, 2) == ["facts_zh_tiny/0001"]
    # A manifest that says nothing was written when there was only one rule.
    del manifest["settings"]["text_tokenizer"]
    path.write_text(json.dumps(manifest))
    assert verify(tmp_path / "out").faults == []
    with pytest.raises(SettingsError, match="text_tokenizer: '13a' there, 'auto' now"):
        collected(settings, 3)
    assert collected(replace(settings, text_tokenizer="13a"), 3) == ["facts_zh_tiny/0002"]


@pytest.mark.parametrize("config", ["rte_nano", "mini_triples_nano", "webnlg_nano"])
def test_older_runs_of_label_tasks_and_of_tasks_that_say_13a_go_on_as_they_are(config: str) -> None:
    settings = RunSettings(config, 1e-3)
    before = settings.to_dict()
    del before["text_tokenizer"]
    assert settings.differences(before) == []
    wanted = [] if config == "rte_nano" else ["text_tokenizer: '13a' there, 'char' now"]
    assert replace(settings, text_tokenizer="char").differences(before) == wanted


def test_recorded_runs_say_it_too() -> None:
    recorded = Recorded(base_model="nano", pool_size=2, test_examples=2)
    values = recorded.to_dict()
    assert values["text_tokenizer"] == "auto" and Recorded.of(values) == recorded
    del values["text_tokenizer"]
    assert Recorded.of(values).text_tokenizer == "13a"
    with pytest.raises(SettingsError, match="text_tokenizer='mecab' must be one of auto, 13a, intl, zh, char"):
        Recorded(base_model="nano", pool_size=2, test_examples=2, text_tokenizer="mecab")
    with pytest.raises(SettingsError, match="text_tokenizer='mecab' must be one of auto, 13a, intl, zh, char"):
        RunSettings("rte_nano", 1e-3, text_tokenizer="mecab")
