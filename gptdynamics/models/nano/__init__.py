"""The bundled base model `nano`: weights, tokenizer, card and the log of its pretraining."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
