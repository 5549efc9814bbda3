"""TRL's `SFTTrainer`, which tokenises, filters and shuffles its dataset itself, becomes a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError
from gptdynamics.recorder import DynamicsRecorder, RecordSettings
from tests.gptdynamics.recorder.training import load


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_ids_survive_what_the_trainer_does_with_its_dataset(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"q{at}", "prompt": f"Say {at}:", "completion": f" {at} it is"} for at in range(16)]
    pool, test = Dataset.from_list(rows), Dataset.from_list([{**row, "id": None} for row in rows[:3]])
    # One row has nothing left of its target when it is cut, and the trainer drops it.
    rows[5] = {**rows[5], "prompt": "The dog sees the red ball. " * 12}

    def trainer(**arguments: Any) -> tuple[Any, list[str]]:
        model, tokenizer = load(llama_folder)
        seen: list[str] = []

        class Noting(trl.SFTTrainer):
            def compute_loss(self, model: Any, inputs: Any, *others: Any, **named: Any) -> torch.Tensor:
                for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
                    seen.append(tokenizer.decode(row[mask.bool()]))
                return super().compute_loss(model, inputs, *others, **named)

        given: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_length": 48}
        given |= {"shuffle_dataset": True, "report_to": [], "use_cpu": True, "save_strategy": "no", "bf16": False}
        args = trl.SFTConfig(output_dir=str(tmp_path / "t"), num_train_epochs=1, **(given | arguments))
        made = Noting(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        return made, seen

    recorded, seen = trainer()
    how = RecordSettings(generate_every=4)
    DynamicsRecorder(tmp_path / "d", "sayings_llama", pool, test, settings=how).attach(recorded)
    recorded.train()
    read = read_dynamics(tmp_path / "d", "sayings_llama", "loss")
    assert [len(batch) for batch in read.curricula[0]] == [4, 4, 4, 3]
    ids = [at for batch in read.curricula[0] for at in batch]
    assert sorted(ids) == [at for at in range(16) if at != 5]
    assert [f"Say {at}: {at} it is<|endoftext|>" for at in ids] == seen
    assert ids != sorted(ids)
    assert verify(tmp_path / "d").faults == []
    # Mixed precision is of the training, not of what is measured, and goes on as it was.
    mixed, _ = trainer(bf16=True)
    DynamicsRecorder(tmp_path / "mixed", "sayings_llama", pool, test, settings=how).attach(mixed)
    mixed.train()
    assert mixed.model.forward is mixed.model.__dict__["forward"]
    losses = read_dynamics(tmp_path / "mixed", "sayings_llama", "loss").values
    np.testing.assert_allclose(losses[..., 0], read.values[..., 0], rtol=1e-6)
    packed, seen = trainer(packing=True, packing_strategy="wrapped")
    DynamicsRecorder(tmp_path / "d", "sayings_llama", pool, test, settings=how).attach(packed)
    with pytest.raises(DataError, match=r"packing puts several examples.* into one row.*Set packing=False"):
        packed.train()
    assert seen == []
