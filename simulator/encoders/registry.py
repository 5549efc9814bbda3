"""Encoders by name."""

from __future__ import annotations

from gptdynamics.errors import SettingsError
from simulator.encoders.encoder import Encoder

ENCODERS = ("sentence", "gradient", "label")


def make_encoder(kind: str, base_model: str, seed: int = 0) -> Encoder:
    """The encoder called `kind`.

    Args:
        kind: `sentence`, `gradient` or `label`.
        base_model: whose gradients the `gradient` encoder takes.
        seed: of the gradient projection.

    Raises:
        SettingsError: no such encoder.
    """
    if kind == "sentence":
        from simulator.encoders.sentence import SentenceEncoder

        return SentenceEncoder()
    if kind == "gradient":
        from simulator.encoders.gradient import GradientEncoder

        return GradientEncoder(base_model, seed=seed)
    if kind == "label":
        from simulator.encoders.label import LabelEncoder

        return LabelEncoder()
    raise SettingsError(f"unknown encoder {kind!r}; known encoders: {', '.join(ENCODERS)}")
