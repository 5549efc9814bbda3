"""The bundled base model `nano`: a small GPT-NeoX of our own, and the scripts that made it."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
