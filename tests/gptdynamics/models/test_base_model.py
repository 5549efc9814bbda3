"""Loading base models by name."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from gptdynamics.errors import SettingsError
from gptdynamics.models.base_model import load_base_model


def test_a_tied_model_is_whole_also_where_tying_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    tied = load_base_model("nano").model
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "tie_weights", lambda *args, **kwargs: None)
        model = load_base_model("nano").model
    tokens = torch.tensor([[0, 5, 9]])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, tied(tokens).logits, rtol=0, atol=0)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert sum(weights.numel() for weights in model.parameters()) == sum(w.numel() for w in tied.parameters())


@pytest.mark.parametrize("name", ["out/sizes/micro", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_called_so(name: str) -> None:
    with pytest.raises(SettingsError, match=f"cannot load base model '{name}': there is no such folder"):
        load_base_model(name)


def test_two_threads_never_load_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    load = AutoModelForCausalLM.from_pretrained
    inside, most = 0, 0

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.2)
        model = load(*args, **kwargs)
        inside -= 1
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    tie_weights = PreTrainedModel.tie_weights
    with ThreadPoolExecutor(2) as threads:
        models = [base.model for base in threads.map(load_base_model, ["nano", "nano"])]
    assert most == 1
    assert PreTrainedModel.tie_weights is tie_weights
    assert all(model.get_output_embeddings().weight is model.get_input_embeddings().weight for model in models)
