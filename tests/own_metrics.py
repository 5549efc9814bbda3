"""A task with metrics of its own, and runs of it on the tiny base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset.verify import verify
from gptdynamics.plans import PlanEntry
from gptdynamics.tasks import add_task_file
from gptdynamics.tasks.user_tasks import VARIABLE

TASK = '''
from gptdynamics.tasks import Metric, Task


def words_missing(text, references):
    """The share of a reference's words that the text lacks, of the reference that lacks fewest."""
    words = text.split()
    return min(sum(word not in words for word in each.split()) / len(each.split()) for each in references)


class Notes(Task):
    name = "notes"
    fields = {"noun": str, "place": str}
    plain = "The {noun} is in the"
    metrics = (
        "loss",
        "bleu",
        Metric(
            "words_missing", words_missing, title="words missing", least=0, greatest=1, higher_is_better=False
        ),
        Metric("exact_match", lambda text, references: text in references, least=0, greatest=1, binary=True),
        Metric("text_length", lambda text, references: len(text), unit="characters", least=0),
    )

    def target(self, row):
        return f" {row['place']} near the {row['noun']}"

    def rows(self, split):
        nouns, places = "cat dog bird house ball plot".split(), "garden river house".split()
        shift = 0 if split == "train" else 1
        return [{"noun": nouns[at % 6], "place": places[(at + at // 6 + shift) % 3]} for at in range(24)]
'''
RUNS = 6


def task_file(folder: Path, text: str = TASK) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "notes.py"
    path.write_text(text, encoding="utf-8")
    return path


def settings_of(base: Path, **changes: Any) -> RunSettings:
    small: dict[str, Any] = {
        "learning_rate": 2e-3,
        "pool_size": 12,
        "subset": 8,
        "batch_size": 2,
        "epochs": 2,
        "test_examples": 6,
        "generate_every": 2,
        "temperature": 1.0,
        "base_model": str(base),
    }
    return RunSettings("notes_tiny", **(small | changes))


def collect_notes(root: Path, base: Path) -> Path:
    """Collect six runs of the task into a folder; afterwards its file is named by nothing any more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        add_task_file(task_file(root / "task"))
        plan = (PlanEntry(settings_of(base), RUNS),)
        assert not collect(CollectSettings(plan, root / "dataset", workers=1)).failed
        assert verify(root / "dataset").faults == []
    return root / "dataset"
