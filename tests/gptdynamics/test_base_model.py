"""Loading base models by name."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from gptdynamics.base_model import load_base_model


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
